// Planes of an output that threads share, each with storage of its own: what is computed plane by plane runs in this
// loop.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../common/counters.h"

namespace flopcuda::cpu {

// Calls run(plane, workspace) for every plane and adds the workspaces' counters to `counters`. Each thread's Workspace
// is made of `sizes`, out here: an exception must not leave the parallel region.
template <class Workspace, class Run, class... Sizes>
void run_planes(int64_t planes, Counters& counters, const Run& run, Sizes... sizes) {
  const int threads = static_cast<int>(std::clamp<int64_t>(planes, 1, omp_get_max_threads()));
  std::vector<Workspace> workspaces;
  workspaces.reserve(threads);
  for (int i = 0; i < threads; ++i) workspaces.emplace_back(sizes...);

  const int64_t chunk = std::max<int64_t>(1, planes / (16 * threads));
#pragma omp parallel for num_threads(threads) schedule(dynamic, chunk)
  for (int64_t plane = 0; plane < planes; ++plane) run(plane, workspaces[omp_get_thread_num()]);
  for (const Workspace& work : workspaces) counters += work.counters;
}

}  // namespace flopcuda::cpu
