// See libraries.h. Atomic, since a model may run in several threads.
#include "torch/libraries.h"

#include <ATen/Context.h>

#include <atomic>

namespace flopcuda::libraries {
namespace {

std::atomic<bool> has_mkldnn = false;
std::atomic<bool> has_cudnn = false;
std::atomic<bool> is_allowed = false;

void enable(bool on) {
  if (has_mkldnn) at::globalContext().setUserEnabledMkldnn(on);
  if (has_cudnn) at::globalContext().setUserEnabledCuDNN(on);
}

}  // namespace

void take() {
  has_mkldnn = at::globalContext().userEnabledMkldnn();
  has_cudnn = at::globalContext().userEnabledCuDNN();
}

void give_back() {
  enable(true);
  has_mkldnn = has_cudnn = false;
}

void allow(bool allowed) { is_allowed = allowed; }

void let_compute() {
  if (is_allowed) enable(true);
}

void keep_out() { enable(false); }

}  // namespace flopcuda::libraries
