/* A library with the functions of NVML that are read, and figures that a test knows. What it lacks
 * is chosen by macros. */
#include <stdio.h>
#include <string.h>

#ifndef INIT_RESULT
#define INIT_RESULT 0
#endif
#ifndef DEVICES
#define DEVICES 2
#endif

static int devices[2] = {0, 1};
static int looks;

int nvmlInit_v2(void) { return INIT_RESULT; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    snprintf(text, length, "580.95.05");
    return 0;
}
int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = DEVICES;
    return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index >= DEVICES) return 2;
    *device = &devices[index];
    return 0;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    snprintf(text, length, "GPU-0000000%d", *(int *)device);
    return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned length) {
    snprintf(text, length, "Fake %d", *(int *)device);
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, unsigned rates[2]) {
    (void)device;
    rates[0] = 40 + (unsigned)looks++;
    rates[1] = 17;
    return 0;
}
struct memory { unsigned version; unsigned long long total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory *memory) {
    (void)device;
    memory->total = 150000000000ULL;
    memory->reserved = 1;
    memory->free = 100000000000ULL;
    memory->used = 50000000000ULL;
    return 0;
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
    (void)device;
    *celsius = 54;
    return sensor == 0 ? 0 : 2;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
    (void)device;
    *milliwatts = 310500;
    return 0;
}
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatts) {
    (void)device;
    *milliwatts = 700000;
    return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
    (void)device;
    *millijoules = 123456789012ULL;
    return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) {
    (void)device;
    *reasons = 0x4 | 0x20;
    return 0;
}
int nvmlDeviceGetTotalEccErrors(void *device, int kind, int counter, unsigned long long *count) {
    (void)counter;
    if (*(int *)device == 1) return 3; /* not supported: a card without ECC */
    *count = kind == 0 ? 7 : 1;
    return 0;
}
struct process { unsigned pid; unsigned long long memory; unsigned gpu, compute; };
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *list) {
    (void)device;
    if (*count == 0) { *count = 2; return 7; } /* the list is too small: this many are needed */
    *count = 2;
    list[0] = (struct process){4242, 1024, 0, 0};
    list[1] = (struct process){4343, 2048, 0, 0};
    return 0;
}
