// The weights seen while a session is open, by identity and version.
#include "torch/kept_weights.h"

#include <c10/core/TensorImpl.h>
#include <c10/core/UndefinedTensorImpl.h>

#include <algorithm>
#include <mutex>
#include <unordered_map>

namespace flopcuda {
namespace {

using WeakTensor = c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;

// A weight as it was seen last. The weak reference keeps its address from being another tensor's.
struct Seen {
  WeakTensor tensor;
  const void* data;
  uint32_t version;
  std::shared_ptr<cpu::KeptWeight> kept;  // null after the first time
};

class Registry {
 public:
  void open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++open_;
  }

  void close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--open_ == 0) seen_.clear();
  }

  std::shared_ptr<cpu::KeptWeight> find(const at::Tensor& weight) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (open_ == 0 || weight.is_inference()) return nullptr;  // tensors of inference mode have no version
    const c10::TensorImpl* const key = weight.unsafeGetTensorImpl();
    const void* const data = weight.const_data_ptr();
    const uint32_t version = key->version_counter().current_version();
    const auto found = seen_.find(key);
    if (found == seen_.end() || found->second.data != data || found->second.version != version) {
      seen_.insert_or_assign(key, Seen{WeakTensor(weight.getIntrusivePtr()), data, version, nullptr});
      if (seen_.size() > purge_at_) purge();
      return nullptr;
    }
    if (!found->second.kept) found->second.kept = std::make_shared<cpu::KeptWeight>();
    return found->second.kept;
  }

  int64_t bytes() {
    const std::lock_guard<std::mutex> lock(mutex_);
    int64_t total = 0;
    for (const auto& [key, seen] : seen_) total += seen.kept ? seen.kept->bytes() : 0;
    return total;
  }

 private:
  // Forgets tensors that are no more.
  void purge() {
    for (auto entry = seen_.begin(); entry != seen_.end();) {
      entry = entry->second.tensor.expired() ? seen_.erase(entry) : std::next(entry);
    }
    purge_at_ = std::max(kMinPurge, 2 * seen_.size());
  }

  static constexpr size_t kMinPurge = 64;

  std::mutex mutex_;
  int64_t open_ = 0;
  size_t purge_at_ = kMinPurge;
  std::unordered_map<const c10::TensorImpl*, Seen> seen_;
};

Registry& registry() {
  static Registry instance;
  return instance;
}

}  // namespace

WeightsAreKept::WeightsAreKept() { registry().open(); }
WeightsAreKept::~WeightsAreKept() { registry().close(); }

std::shared_ptr<cpu::KeptWeight> kept_weight(const at::Tensor& weight) { return registry().find(weight); }

int64_t kept_weight_bytes() { return registry().bytes(); }

}  // namespace flopcuda
