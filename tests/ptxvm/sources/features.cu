// Features of the language: switches, calls through pointers and virtual functions, recursion, local arrays,
// structures by value, module variables, dynamic shared memory in several parts.

// ---- a virtual machine for a little stack language: a dense switch in a loop, and a stack in local memory ----

enum Instruction : unsigned char { kPush, kAdd, kSubtract, kMultiply, kSwap, kDuplicate, kNegate, kSkipIfZero, kHalt };

// Thread i runs the program at starts[i]; the operand of kPush is the next byte.
extern "C" __global__ void interpret(const unsigned char* code, const int* starts, int* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int stack[16], top = 0;
  const unsigned char* next = code + starts[i];
  while (true) {
    const unsigned char instruction = *next++;
    switch (instruction) {
      case kPush:
        stack[top++] = static_cast<signed char>(*next++);
        break;
      case kAdd:
        --top;
        stack[top - 1] += stack[top];
        break;
      case kSubtract:
        --top;
        stack[top - 1] -= stack[top];
        break;
      case kMultiply:
        --top;
        stack[top - 1] *= stack[top];
        break;
      case kSwap: {
        const int upper = stack[top - 1];
        stack[top - 1] = stack[top - 2];
        stack[top - 2] = upper;
        break;
      }
      case kDuplicate:
        stack[top] = stack[top - 1];
        ++top;
        break;
      case kNegate:
        stack[top - 1] = -stack[top - 1];
        break;
      case kSkipIfZero:
        if (stack[--top] == 0) ++next;
        break;
      default:
        out[i] = stack[top - 1];
        return;
    }
  }
}

// ---- pointers to functions ----

using Binary = long long (*)(long long, long long);
__device__ long long plus(long long a, long long b) { return a + b; }
__device__ long long minus(long long a, long long b) { return a - b; }
__device__ long long times(long long a, long long b) { return a * b; }
__device__ long long least(long long a, long long b) { return a < b ? a : b; }
__device__ Binary operations[] = {plus, minus, times, least};

// Folds each row of 8 numbers by an operation of its own, and leaves the pointer in `used` for `apply_again`.
extern "C" __global__ void fold(const long long* in, const int* kind, long long* out, Binary* used, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const Binary operation = operations[kind[i]];
  long long value = in[8 * i];
  for (int k = 1; k < 8; ++k) value = operation(value, in[8 * i + k]);
  out[i] = value;
  used[i] = operation;
}

extern "C" __global__ void apply_again(const Binary* used, long long* values, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) values[i] = used[i](values[i], values[i]);
}

// ---- virtual functions of objects on the device's heap ----

class Shape {
 public:
  __device__ virtual ~Shape() {}
  __device__ virtual double area() const = 0;
  __device__ virtual int corners() const { return 0; }
};

class Circle : public Shape {
 public:
  __device__ explicit Circle(double radius) : radius_(radius) {}
  __device__ double area() const override { return 3.0 * radius_ * radius_; }

 private:
  double radius_;
};

class Polygon : public Shape {
 public:
  __device__ Polygon(int corners, double side) : corners_(corners), side_(side) {}
  __device__ double area() const override { return corners_ * side_ / 4; }
  __device__ int corners() const override { return corners_; }

 protected:
  int corners_;
  double side_;
};

class Square : public Polygon {
 public:
  __device__ explicit Square(double side) : Polygon(4, side) {}
  __device__ double area() const override { return side_ * side_; }
};

extern "C" __global__ void make_shapes(Shape** shapes, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  if (i % 3 == 0) {
    shapes[i] = new Circle(i);
  } else if (i % 3 == 1) {
    shapes[i] = new Square(i);
  } else {
    shapes[i] = new Polygon(i, 8);
  }
}

extern "C" __global__ void measure_shapes(const Shape* const* shapes, double* area, int* corners, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  area[i] = shapes[i]->area();
  corners[i] = shapes[i]->corners();
}

extern "C" __global__ void delete_shapes(Shape** shapes, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) delete shapes[i];
}

// ---- recursion ----

struct Node {
  int value;        // of a leaf; for others the operation: 0 adds, 1 subtracts, 2 takes the larger
  int left, right;  // negative in leaves
};

__device__ int evaluate(const Node* nodes, int root) {
  const Node node = nodes[root];
  if (node.left < 0) return node.value;
  const int left = evaluate(nodes, node.left), right = evaluate(nodes, node.right);
  return node.value == 0 ? left + right : node.value == 1 ? left - right : max(left, right);
}

extern "C" __global__ void evaluate_trees(const Node* nodes, const int* roots, int* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = evaluate(nodes, roots[i]);
}

__device__ void quick_sort(short* first, short* last) {
  if (last - first < 2) return;
  const short pivot = first[(last - first) / 2];
  short *low = first, *high = last - 1;
  while (low <= high) {
    while (*low < pivot) ++low;
    while (*high > pivot) --high;
    if (low <= high) {
      const short upper = *low;
      *low++ = *high;
      *high-- = upper;
    }
  }
  quick_sort(first, high + 1);
  quick_sort(low, last);
}

// Each thread sorts a row of 24 in its own local memory.
extern "C" __global__ void sort_rows(const short* in, short* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  short row[24];
  for (int k = 0; k < 24; ++k) row[k] = in[24 * i + k];
  quick_sort(row, row + 24);
  for (int k = 0; k < 24; ++k) out[24 * i + k] = row[k];
}

// ---- structures by value ----

struct Matrix {
  float rows[3][4];
};

struct Camera {
  Matrix view;
  double zoom;
  short shift[3];
  char mirror;
  float* out;
};

__device__ __noinline__ Matrix product(Matrix a, const Matrix& b) {
  Matrix result;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 4; ++j) {
      float sum = j == 3 ? a.rows[i][3] : 0.0f;
      for (int k = 0; k < 3; ++k) sum += a.rows[i][k] * b.rows[k][j];
      result.rows[i][j] = sum;
    }
  }
  return result;
}

// The view applied twice to points (x, y, z), zoomed and shifted.
extern "C" __global__ void project(Camera camera, const float3* points, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const Matrix twice = product(camera.view, camera.view);
  const float3 point = points[i];
  for (int axis = 0; axis < 3; ++axis) {
    const float* row = twice.rows[axis];
    const double moved = row[0] * point.x + row[1] * point.y + row[2] * point.z + row[3];
    const double sign = camera.mirror && axis == 0 ? -1 : 1;
    camera.out[3 * i + axis] = static_cast<float>(sign * moved * camera.zoom + camera.shift[axis]);
  }
}

// ---- variables of the module ----

__constant__ double coefficients[6] = {1.0};
__device__ unsigned long long calls = 100;
__device__ int seen[8];
static __device__ float scale = 2.0f;

extern "C" __global__ void polynomial(const double* x, double* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  double value = 0.0;
  for (int k = 5; k >= 0; --k) value = value * x[i] + coefficients[k];
  out[i] = value * scale;
  atomicAdd(&calls, 1ull);
  atomicAdd(&seen[i % 8], i);
}

// ---- dynamic shared memory in three parts ----

extern "C" __global__ void shared_parts(const int* in, double* out) {
  extern __shared__ __align__(16) unsigned char memory[];
  auto* doubles = reinterpret_cast<double*>(memory);
  auto* ints = reinterpret_cast<int*>(doubles + blockDim.x);
  auto* bytes = reinterpret_cast<unsigned char*>(ints + blockDim.x);
  const int i = threadIdx.x, value = in[blockIdx.x * blockDim.x + i];
  doubles[i] = value / 4.0;
  ints[i] = value;
  bytes[i] = value;
  __syncthreads();
  const int other = (i * 7 + 3) % blockDim.x;
  out[blockIdx.x * blockDim.x + i] = doubles[other] + ints[(other + 1) % blockDim.x] + bytes[(other + 2) % blockDim.x];
}
