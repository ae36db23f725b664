// The functions that code compiled with nvcc --default-stream per-thread calls instead: the same, with the thread's own
// stream for none.
#include "error.h"
#include "streams.h"

namespace flopcuda::vcuda {
namespace {

template <auto Function>
struct OnOwnStream;

template <class... Arguments, cudaError_t (*Function)(Arguments...)>
struct OnOwnStream<Function> {
  static cudaError_t call(Arguments... arguments) {
    const OwnDefaultStream scope;
    return Function(arguments...);
  }
};

}  // namespace
}  // namespace flopcuda::vcuda

using flopcuda::vcuda::OnOwnStream;

VCUDA_EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t);

// An indirect function takes its type, and at load time its code, from elsewhere.
#define VCUDA_PER_THREAD(function, suffix)                                                                 \
  extern "C" {                                                                                             \
  static decltype(function)* resolve_##function() { return OnOwnStream<&function>::call; }                 \
  __attribute__((visibility("default"), ifunc("resolve_" #function))) decltype(function) function##suffix; \
  }

VCUDA_PER_THREAD(__cudaLaunchKernel, _ptsz)
VCUDA_PER_THREAD(cudaEventRecord, _ptsz)
VCUDA_PER_THREAD(cudaEventRecordWithFlags, _ptsz)
VCUDA_PER_THREAD(cudaFreeAsync, _ptsz)
VCUDA_PER_THREAD(cudaGetDriverEntryPoint, _ptsz)
VCUDA_PER_THREAD(cudaGetDriverEntryPointByVersion, _ptsz)
VCUDA_PER_THREAD(cudaGraphInstantiateWithParams, _ptsz)
VCUDA_PER_THREAD(cudaGraphLaunch, _ptsz)
VCUDA_PER_THREAD(cudaGraphUpload, _ptsz)
VCUDA_PER_THREAD(cudaLaunchCooperativeKernel, _ptsz)
VCUDA_PER_THREAD(cudaLaunchHostFunc, _ptsz)
VCUDA_PER_THREAD(cudaLaunchKernel, _ptsz)
VCUDA_PER_THREAD(cudaLaunchKernelExC, _ptsz)
VCUDA_PER_THREAD(cudaMallocAsync, _ptsz)
VCUDA_PER_THREAD(cudaMallocFromPoolAsync, _ptsz)
VCUDA_PER_THREAD(cudaMemPrefetchAsync, _ptsz)
VCUDA_PER_THREAD(cudaMemcpy, _ptds)
VCUDA_PER_THREAD(cudaMemcpy2D, _ptds)
VCUDA_PER_THREAD(cudaMemcpy2DAsync, _ptsz)
VCUDA_PER_THREAD(cudaMemcpy3D, _ptds)
VCUDA_PER_THREAD(cudaMemcpy3DAsync, _ptsz)
VCUDA_PER_THREAD(cudaMemcpy3DPeer, _ptds)
VCUDA_PER_THREAD(cudaMemcpy3DPeerAsync, _ptsz)
VCUDA_PER_THREAD(cudaMemcpyAsync, _ptsz)
VCUDA_PER_THREAD(cudaMemcpyFromSymbol, _ptds)
VCUDA_PER_THREAD(cudaMemcpyFromSymbolAsync, _ptsz)
VCUDA_PER_THREAD(cudaMemcpyToSymbol, _ptds)
VCUDA_PER_THREAD(cudaMemcpyToSymbolAsync, _ptsz)
VCUDA_PER_THREAD(cudaMemset, _ptds)
VCUDA_PER_THREAD(cudaMemset2D, _ptds)
VCUDA_PER_THREAD(cudaMemset2DAsync, _ptsz)
VCUDA_PER_THREAD(cudaMemset3D, _ptds)
VCUDA_PER_THREAD(cudaMemset3DAsync, _ptsz)
VCUDA_PER_THREAD(cudaMemsetAsync, _ptsz)
VCUDA_PER_THREAD(cudaStreamAddCallback, _ptsz)
VCUDA_PER_THREAD(cudaStreamAttachMemAsync, _ptsz)
VCUDA_PER_THREAD(cudaStreamBeginCapture, _ptsz)
VCUDA_PER_THREAD(cudaStreamBeginCaptureToGraph, _ptsz)
VCUDA_PER_THREAD(cudaStreamCopyAttributes, _ptsz)
VCUDA_PER_THREAD(cudaStreamEndCapture, _ptsz)
VCUDA_PER_THREAD(cudaStreamGetAttribute, _ptsz)
VCUDA_PER_THREAD(cudaStreamGetCaptureInfo, _ptsz)
VCUDA_PER_THREAD(cudaStreamGetDevice, _ptsz)
VCUDA_PER_THREAD(cudaStreamGetFlags, _ptsz)
VCUDA_PER_THREAD(cudaStreamGetId, _ptsz)
VCUDA_PER_THREAD(cudaStreamGetPriority, _ptsz)
VCUDA_PER_THREAD(cudaStreamIsCapturing, _ptsz)
VCUDA_PER_THREAD(cudaStreamQuery, _ptsz)
VCUDA_PER_THREAD(cudaStreamSetAttribute, _ptsz)
VCUDA_PER_THREAD(cudaStreamSynchronize, _ptsz)
VCUDA_PER_THREAD(cudaStreamUpdateCaptureDependencies, _ptsz)
VCUDA_PER_THREAD(cudaStreamWaitEvent, _ptsz)
