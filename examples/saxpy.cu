// y = a * x + y, for `flopcuda ptx run`: nvcc -ptx -lineinfo -arch=compute_80 examples/saxpy.cu
extern "C" __global__ void saxpy(int n, float a, const float* x, float* y) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = a * x[i] + y[i];
}
