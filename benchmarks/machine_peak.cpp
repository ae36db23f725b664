// What this machine can do at best: fused multiply-adds in registers, and bytes read from memory.
// c++ -O3 -march=native -ffp-contract=fast -pthread machine_peak.cpp; ./a.out THREADS ROUNDS prints both as JSON, the
// best of so many rounds.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <thread>
#include <vector>

namespace {

#ifdef __AVX512F__
constexpr int VECTOR_BYTES = 64;
#else
constexpr int VECTOR_BYTES = 32;
#endif
typedef float Vector __attribute__((vector_size(VECTOR_BYTES)));
constexpr int LANES = VECTOR_BYTES / sizeof(float);
constexpr int CHAINS = 12;  // independent sums: more than an FMA's latency times its rate

volatile float sink;

// Floating-point operations done.
double multiply_add() {
  constexpr int STEPS = 20'000'000;
  Vector sums[CHAINS], factor, term;
  for (int lane = 0; lane < LANES; ++lane) factor[lane] = 0.5f, term[lane] = 1.0f;
#pragma GCC unroll 12  // each sum in a register
  for (int i = 0; i < CHAINS; ++i) sums[i] = term * static_cast<float>(i);
  for (int step = 0; step < STEPS; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < CHAINS; ++i) {
      sums[i] = sums[i] * factor + term;
      asm volatile("" : "+v"(sums[i]));  // or the compiler would solve the recurrence
    }
  }
  Vector total = sums[0];
#pragma GCC unroll 12
  for (int i = 1; i < CHAINS; ++i) total += sums[i];
  sink = total[0];
  return 2.0 * STEPS * CHAINS * LANES;
}

// Bytes read.
double read_memory() {
  constexpr size_t VECTORS = (size_t{256} << 20) / sizeof(Vector);  // far beyond any cache
  static thread_local std::vector<Vector> memory(VECTORS, Vector{} + 1.0f);
  Vector sums[4] = {};
  for (size_t i = 0; i < VECTORS; i += 4) {
    for (int j = 0; j < 4; ++j) sums[j] += memory[i + j];
  }
  sink = (sums[0] + sums[1] + sums[2] + sums[3])[0];
  return static_cast<double>(VECTORS * sizeof(Vector));
}

// Of the calling thread: another program on its core takes nothing from the rate.
double processor_seconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Best rate of several rounds, per second, of all threads together.
double best_rate(int threads, int rounds, const std::function<double()>& work) {
  double best = 0;
  std::vector<double> rates(threads);
  std::vector<std::thread> team;
  for (int i = 0; i < threads; ++i) {
    team.emplace_back([&rates, &work, rounds, i] {
      work();
      for (int round = 0; round < rounds; ++round) {
        const double start = processor_seconds();
        const double done = work();
        rates[i] = std::max(rates[i], done / (processor_seconds() - start));
      }
    });
  }
  for (std::thread& thread : team) thread.join();
  for (double rate : rates) best += rate;
  return best;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return std::fprintf(stderr, "usage: %s THREADS ROUNDS\n", arguments[0]), 2;
  const int threads = std::atoi(arguments[1]), rounds = std::atoi(arguments[2]);
  std::printf("{\"flops\": %.4g, \"bytes_per_second\": %.4g}\n", best_rate(threads, rounds, multiply_add),
              best_rate(threads, rounds, read_memory));
}
