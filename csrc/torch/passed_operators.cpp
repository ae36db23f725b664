// See passed_operators.h. torch has one kernel for all operators at its key for modes, which calls the mode; these have
// one of their own there.
#include "torch/passed_operators.h"

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <pybind11/stl.h>
#include <torch/csrc/PyInterpreter.h>
#include <torch/csrc/utils/torch_dispatch_mode.h>
#include <torch/library.h>

#include <algorithm>
#include <mutex>
#include <utility>

namespace py = pybind11;

namespace flopcuda {
namespace {

using c10::DispatchKey;
using c10::DispatchKeySet;
using ModeStack = c10::impl::TorchDispatchModeTLS;

constexpr DispatchKeySet kBelowModes(DispatchKeySet::FULL_AFTER, DispatchKey::Python);
constexpr DispatchKeySet kAboveModes =
    DispatchKeySet(DispatchKeySet::FULL) ^ (kBelowModes | DispatchKeySet(DispatchKey::Python));

// Whom the operators pass by, and who is told of it. Backward passes run without Python's lock. At the end of the
// process threads are gone that a Progress of a session that is still open would ask for.
using Modes = std::vector<std::pair<PyObject*, std::shared_ptr<Progress>>>;
std::mutex mutex;
Modes& modes = *new Modes;

// Null if the operators of this thread are not to pass.
std::shared_ptr<Progress> progress_here() {
  if (ModeStack::stack_len() != 1) return nullptr;
  const PyObject* const mode = ModeStack::get_stack_at(0)->ptr(getPyInterpreter());
  const std::lock_guard<std::mutex> lock(mutex);
  for (const auto& [known, progress] : modes) {
    if (known == mode) return progress;
  }
  return nullptr;
}

bool is_plain(const c10::IValue& value) {
  if (value.isTensor()) return !value.unsafeToTensorImpl()->key_set().has(DispatchKey::Python);
  if (!value.isTensorList() && !value.isOptionalTensorList()) return true;
  const auto list = value.toListRef();
  return std::all_of(list.begin(), list.end(), is_plain);
}

bool are_plain(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  return std::all_of(stack.end() - static_cast<int64_t>(op.schema().arguments().size()), stack.end(), is_plain);
}

// Where the key was asked for, and then the modes were switched off.
void run_without_modes(const c10::OperatorHandle& op, DispatchKeySet keys, torch::jit::Stack* stack) {
  c10::impl::LocalDispatchKeySet local = c10::impl::tls_local_dispatch_key_set();
  local.included_ = local.included_.remove(DispatchKey::Python);
  const c10::impl::ForceDispatchKeyGuard without_key(local);
  op.redispatchBoxed(keys & kBelowModes, stack);
}

// As torch's own kernel, but for modes that are passed by.
void pass(const c10::OperatorHandle& op, DispatchKeySet keys, torch::jit::Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard below_modes(kAboveModes);
  if (!are_plain(op, *stack)) return (*getPyInterpreter())->dispatch(op, stack);
  if (ModeStack::stack_len() == 0) return run_without_modes(op, keys, stack);
  const std::shared_ptr<Progress> progress = progress_here();
  if (!progress) return (*getPyInterpreter())->dispatch(op, stack);
  const torch::torch_dispatch_mode::StashTorchDispatchModeGuard without_mode;
  const PassingOperator passing(*progress);
  op.redispatchBoxed(keys & kBelowModes, stack);
}

// The kernels, until the last one who asks for them is gone.
std::shared_ptr<void> kernels(const std::vector<std::string>& names) {
  static std::weak_ptr<torch::Library> living;
  if (auto library = living.lock()) return library;
  auto library =
      std::make_shared<torch::Library>(torch::Library::IMPL, "aten", DispatchKey::Python, __FILE__, __LINE__);
  for (const std::string& name : names) {
    library->impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&pass>());
  }
  living = library;
  return library;
}

}  // namespace

PassedOperators::PassedOperators(const py::object& mode, std::shared_ptr<Progress> progress,
                                 const std::vector<std::string>& names)
    : mode_(mode.ptr()), kernels_(kernels(names)) {
  const std::lock_guard<std::mutex> lock(mutex);
  modes.emplace_back(mode_, std::move(progress));
}

PassedOperators::~PassedOperators() {
  const std::lock_guard<std::mutex> lock(mutex);
  modes.erase(std::find_if(modes.begin(), modes.end(), [this](const auto& entry) { return entry.first == mode_; }));
}

void bind_passed_operators(py::module_& module) {
  py::class_<PassedOperators>(
      module, "PassedOperators",
      "While it lives, a dispatch mode is shown none of these operators of aten, by names with overloads, where it is "
      "a thread's only mode; the progress is told of them.")
      .def(py::init<const py::object&, std::shared_ptr<Progress>, const std::vector<std::string>&>(), py::arg("mode"),
           py::arg("progress"), py::arg("names"));
}

}  // namespace flopcuda
