// User objects: something of the caller's that lives as long as a graph or the caller refers to it.
#include <algorithm>
#include <iterator>
#include <map>

#include "error.h"
#include "graph.h"

namespace flopcuda::vcuda {
namespace {

using References = std::vector<std::shared_ptr<UserObject>>;  // one entry for each

struct Entry {
  std::weak_ptr<UserObject> object;  // graphs may be the only ones that still refer to it
  References of_the_caller;
};

std::map<cudaUserObject_t, Entry>& user_objects() { return immortal<std::map<cudaUserObject_t, Entry>>(); }

void forget_destroyed() {
  auto& all = user_objects();
  for (auto entry = all.begin(); entry != all.end();) {
    entry = entry->second.object.expired() ? all.erase(entry) : std::next(entry);
  }
}

Entry& entry_of(cudaUserObject_t handle) {
  const auto found = user_objects().find(handle);
  require(found != user_objects().end() && !found->second.object.expired(), cudaErrorInvalidValue);
  return found->second;
}

// As many references out of a list; none if there are fewer.
References take(References& references, const UserObject* object, unsigned count) {
  const auto is_other = [&](const std::shared_ptr<UserObject>& entry) { return entry.get() != object; };
  const auto first = std::stable_partition(references.begin(), references.end(), is_other);
  require(references.end() - first >= static_cast<std::ptrdiff_t>(count), cudaErrorInvalidValue);
  const auto taken_from = references.end() - static_cast<std::ptrdiff_t>(count);
  References taken(std::make_move_iterator(taken_from), std::make_move_iterator(references.end()));
  references.erase(taken_from, references.end());
  return taken;
}

}  // namespace
}  // namespace flopcuda::vcuda

using namespace flopcuda::vcuda;

cudaError_t cudaUserObjectCreate(cudaUserObject_t* handle, void* object, cudaHostFn_t destroy, unsigned count,
                                 unsigned flags) {
  return entry([&] {
    require(handle && destroy && count > 0 && flags == cudaUserObjectNoDestructorSync, cudaErrorInvalidValue);
    const GraphLock lock(graph_mutex());
    auto made = std::make_shared<UserObject>(object, destroy);
    *handle = reinterpret_cast<cudaUserObject_t>(made.get());
    forget_destroyed();
    user_objects()[*handle] = {made, References(count, made)};
  });
}

cudaError_t cudaUserObjectRetain(cudaUserObject_t handle, unsigned count) {
  return entry([&] {
    const GraphLock lock(graph_mutex());
    Entry& entry = entry_of(handle);
    entry.of_the_caller.insert(entry.of_the_caller.end(), count, entry.object.lock());
  });
}

cudaError_t cudaUserObjectRelease(cudaUserObject_t handle, unsigned count) {
  return entry_despite_fault([&] {
    References released;
    const GraphLock lock(graph_mutex());
    Entry& entry = entry_of(handle);
    released = take(entry.of_the_caller, entry.object.lock().get(), count);
  });
}

cudaError_t cudaGraphRetainUserObject(cudaGraph_t graph, cudaUserObject_t handle, unsigned count, unsigned flags) {
  return entry([&] {
    require(count > 0 && (flags & ~static_cast<unsigned>(cudaGraphUserObjectMove)) == 0, cudaErrorInvalidValue);
    const GraphLock lock(graph_mutex());
    References& references = graph_of(graph)->user_objects;
    Entry& entry = entry_of(handle);
    const std::shared_ptr<UserObject> object = entry.object.lock();
    if (flags & cudaGraphUserObjectMove) take(entry.of_the_caller, object.get(), count);
    references.insert(references.end(), count, object);
  });
}

cudaError_t cudaGraphReleaseUserObject(cudaGraph_t graph, cudaUserObject_t handle, unsigned count) {
  return entry([&] {
    References released;
    const GraphLock lock(graph_mutex());
    const std::shared_ptr<UserObject> object = entry_of(handle).object.lock();
    released = take(graph_of(graph)->user_objects, object.get(), count);
  });
}
