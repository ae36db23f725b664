/* What the virtual device's libcudart exports besides CUDA's own functions, for ctypes.
 *
 * Texts are JSON in UTF-8 unless said otherwise; each is valid until its thread asks for the next one. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/* Plain text: the version of this interface. */
const char* flopcuda_vcuda_version(void);

/* A list of what the checks found, the oldest first: {"kind", "kernel", "function", "line", "text", "source_file",
 * "source_line", "block": [x, y, z], "thread": [x, y, z], "address", "message", "count", "device"}, as in
 * flopcuda.ptx.Finding. */
const char* flopcuda_vcuda_findings_json(void);

/* {"total": launches since the start, "launches": a list of the last 10,000, the oldest first}, each {"kernel",
 * "device", "grid", "block", "shared_bytes", "seconds", "lane_instructions", "warp_instructions", "fma_lanes": {type:
 * multiply-adds}, "global_requests", "global_sectors", "shared_requests", "shared_wavefronts", "bank_conflicts",
 * "branches", "diverged_branches", "barriers", "findings": how many}. */
const char* flopcuda_vcuda_launches_json(void);

/* A list of the functions of CUDA that were called and are not there. */
const char* flopcuda_vcuda_unsupported(void);

/* For the stubs of functions that are not there: remembers the name and returns CUDA's error for it. */
int flopcuda_vcuda_remember_unsupported(const char* name);

/* For host functions in a kernel's place: ends the current device with an error of CUDA's, as a kernel's fault does. */
void flopcuda_vcuda_fail(int error);

/* Forgets findings, launches and functions. */
void flopcuda_vcuda_clear(void);

#ifdef __cplusplus
}
#endif
