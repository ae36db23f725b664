"""CUDA programs on the virtual device: devices, kernels, symbols, printf, cooperative launches."""

from __future__ import annotations

import pytest

from tests.ptxvm.harness import needs_nvcc
from tests.virtual_cuda.programs import lines_of, needs_libraries

pytestmark = [needs_nvcc, needs_libraries]


def test_kernel_over_device_memory() -> None:
    source = r"""
    __global__ void saxpy(int n, float a, const float* x, float* y) {
      int i = blockIdx.x * blockDim.x + threadIdx.x;
      if (i < n) y[i] = a * x[i] + y[i];
    }
    int main() {
      const int n = 1000;
      std::vector<float> x(n), y(n);
      for (int i = 0; i < n; ++i) x[i] = i, y[i] = 2 * i;
      float *dx, *dy;
      CHECK(cudaMalloc(&dx, n * 4));
      CHECK(cudaMalloc(&dy, n * 4));
      CHECK(cudaMemcpy(dx, x.data(), n * 4, cudaMemcpyHostToDevice));
      CHECK(cudaMemcpy(dy, y.data(), n * 4, cudaMemcpyHostToDevice));
      saxpy<<<4, 256>>>(n, 3.0f, dx, dy);
      CHECK(cudaGetLastError());
      CHECK(cudaMemcpy(y.data(), dy, n * 4, cudaMemcpyDeviceToHost));
      for (int i = 0; i < n; ++i) if (y[i] != 5.0f * i) return std::printf("%d\n", i), 1;
      std::printf("right\n");
    }
    """
    assert lines_of(source) == ["right"]


def test_symbols_of_every_kind() -> None:
    source = r"""
    __managed__ int managed = 5;
    __device__ int counter = 3;
    __constant__ float table[4] = {1, 2, 3, 4};
    __global__ void step(int i) { counter += (int)table[i]; managed += counter; }
    int main() {
      managed += 1;
      step<<<1, 1>>>(3);
      CHECK(cudaDeviceSynchronize());
      int value;
      CHECK(cudaMemcpyFromSymbol(&value, counter, 4));
      std::printf("%d %d\n", value, managed);
      const float ten = 10;
      CHECK(cudaMemcpyToSymbol(table, &ten, 4, 4));
      step<<<1, 1>>>(1);
      void* place;
      size_t size;
      CHECK(cudaGetSymbolAddress(&place, counter));
      CHECK(cudaGetSymbolSize(&size, table));
      CHECK(cudaMemcpy(&value, place, 4, cudaMemcpyDeviceToHost));
      std::printf("%d %d %zu\n", value, managed, size);
      std::printf("%s\n", NAME(cudaMemcpyToSymbol(table, &ten, 4, 16)));
      cudaPointerAttributes attributes;
      CHECK(cudaPointerGetAttributes(&attributes, &managed));
      std::printf("%d\n", attributes.type == cudaMemoryTypeManaged);
    }
    """
    assert lines_of(source) == ["7 13", "17 30 16", "cudaErrorInvalidValue", "1"]


def test_printf_of_a_kernel() -> None:
    source = r"""
    __global__ void hello(int n) { printf("thread %d of %s: %5.2f\n", threadIdx.x, "it", n / 4.0); }
    int main() { hello<<<1, 2>>>(3); CHECK(cudaDeviceSynchronize()); std::printf("done\n"); }
    """
    assert lines_of(source) == ["thread 0 of it:  0.75", "thread 1 of it:  0.75", "done"]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_cooperative_grid_waits_for_all_its_blocks(threads: int) -> None:
    source = r"""
    #include <cooperative_groups.h>
    __global__ void total(int* values, int* sum) {
      auto grid = cooperative_groups::this_grid();
      for (int round = 0; round < 3; ++round) {
        values[grid.thread_rank()] = round + 1;
        grid.sync();
        if (grid.thread_rank() == 0) for (int i = 0; i < grid.size(); ++i) *sum += values[i];
        grid.sync();
      }
    }
    int main() {
      int *values, *sum, blocks, result, processors;
      CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
      CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, total, 128, 0));
      blocks *= processors;
      CHECK(cudaMalloc(&values, blocks * 128 * 4));
      CHECK(cudaMalloc(&sum, 4));
      CHECK(cudaMemset(sum, 0, 4));
      void* arguments[] = {&values, &sum};
      CHECK(cudaLaunchCooperativeKernel(total, blocks, 128, arguments));
      CHECK(cudaMemcpy(&result, sum, 4, cudaMemcpyDeviceToHost));
      std::printf("%d\n", result == (1 + 2 + 3) * blocks * 128);
      std::printf("%s\n", NAME(cudaLaunchCooperativeKernel(total, blocks + 1, 128, arguments)));
    }
    """
    assert lines_of(source, settings={"THREADS": threads}) == ["1", "cudaErrorCooperativeLaunchTooLarge"]
