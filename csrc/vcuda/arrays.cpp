// Arrays and textures are not there but for the description of an element, which needs no device.
#include "cuda_api.h"

cudaChannelFormatDesc cudaCreateChannelDesc(int x, int y, int z, int w, cudaChannelFormatKind kind) {
  return {x, y, z, w, kind};
}
