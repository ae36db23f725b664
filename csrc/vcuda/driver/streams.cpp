// Streams and events; their handles are the runtime's.
#include "cuda_driver_api.h"

using namespace flopcuda::vcuda;

CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
  return result_of(cudaStreamCreateWithFlags(stream, flags));
}

CUresult cuStreamCreateWithPriority(CUstream* stream, unsigned flags, int priority) {
  return result_of(cudaStreamCreateWithPriority(stream, flags, priority));
}

CUresult cuStreamDestroy(CUstream stream) { return result_of(cudaStreamDestroy(stream)); }

CUresult cuStreamSynchronize(CUstream stream) { return result_of(cudaStreamSynchronize(stream)); }

CUresult cuStreamQuery(CUstream stream) { return result_of(cudaStreamQuery(stream)); }

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
  return result_of(cudaStreamWaitEvent(stream, event, flags));
}

CUresult cuEventCreate(CUevent* event, unsigned flags) { return result_of(cudaEventCreateWithFlags(event, flags)); }

CUresult cuEventDestroy(CUevent event) { return result_of(cudaEventDestroy(event)); }

CUresult cuEventRecord(CUevent event, CUstream stream) { return result_of(cudaEventRecord(event, stream)); }

CUresult cuEventQuery(CUevent event) { return result_of(cudaEventQuery(event)); }

CUresult cuEventSynchronize(CUevent event) { return result_of(cudaEventSynchronize(event)); }

CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  return result_of(cudaEventElapsedTime(milliseconds, start, end));
}
