// Runs one launch of a kernel on the CPU. Standard input: the kernel's name, grid, threads, buffers,
// and its arguments with the numbers of buffers in the place of addresses. Standard output: the
// buffers afterwards.
#include "emulation.h"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <ucontext.h>
#include <vector>

#include "../../cuda/kernels.cu"

Index blockIdx, blockDim, threadIdx;

namespace {

constexpr std::size_t STACK_BYTES = 64 * 1024;

struct Thread {
    ucontext_t context;
    std::vector<char> stack;
    bool is_done;
};

struct Barrier {
    u32 arrived = 0;
    u64 generation = 0;
};

std::vector<Thread> threads;
ucontext_t scheduler;
u32 current;
Barrier of_block;
Barrier of_warp[32];
float lanes[32][32];
void (*body)();

void wait(Barrier &barrier, u32 parties) {
    u64 generation = barrier.generation;
    if (++barrier.arrived == parties) {
        barrier.arrived = 0;
        barrier.generation++;
    }
    while (barrier.generation == generation) {
        u32 own = current;
        swapcontext(&threads[own].context, &scheduler);
    }
}

void thread_main() {
    body();
    threads[current].is_done = true;
}

void run_block() {
    for (u32 i = 0; i < blockDim.x; i++) {
        Thread &thread = threads[i];
        thread.is_done = false;
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.data();
        thread.context.uc_stack.ss_size = thread.stack.size();
        thread.context.uc_link = &scheduler;
        makecontext(&thread.context, thread_main, 0);
    }
    u32 left = blockDim.x;
    // A barrier that not all reach would turn for ever.
    for (u64 rounds = 0; left > 0; rounds++) {
        if (rounds > 10'000'000) std::abort();
        for (u32 i = 0; i < blockDim.x; i++) {
            if (threads[i].is_done) continue;
            current = i;
            threadIdx = {i, 0, 0};
            swapcontext(&scheduler, &threads[i].context);
            if (threads[i].is_done) left--;
        }
    }
}

// The kernels that take ARGUMENTS.
template <typename Arguments> struct Entry {
    const char *name;
    void (*kernel)(Arguments);
};

std::vector<char> arguments;

template <typename Arguments> bool try_all(const std::string &name, std::vector<Entry<Arguments>> entries) {
    for (auto &entry : entries) {
        if (name != entry.name) continue;
        if (arguments.size() != sizeof(Arguments)) {
            std::fprintf(stderr, "%s takes %zu bytes, %zu were given\n", entry.name, sizeof(Arguments),
                         arguments.size());
            std::exit(3);
        }
        static void (*kernel)(Arguments);
        kernel = entry.kernel;
        body = [] {
            Arguments given;
            std::memcpy(&given, arguments.data(), sizeof given);
            kernel(given);
        };
        return true;
    }
    return false;
}

#define NAMED(KERNEL) {#KERNEL, KERNEL}
#define GROUPS(KERNEL) NAMED(KERNEL##_g1), NAMED(KERNEL##_g2), NAMED(KERNEL##_g4), NAMED(KERNEL##_g8)
#define WIDTHS(KERNEL) GROUPS(KERNEL##_w64), GROUPS(KERNEL##_w128), GROUPS(KERNEL##_w256)

bool choose(const std::string &name) {
    return try_all<NormArguments>(name, {NAMED(rms_norm)}) ||
           try_all<GateArguments>(name, {NAMED(silu_mul), NAMED(gelu_mul)}) ||
           try_all<RopeArguments>(name, {NAMED(rope)}) ||
           try_all<WriteArguments>(name, {NAMED(kv_write_f32), NAMED(kv_write_f16)}) ||
           try_all<AttentionArguments>(
               name, {WIDTHS(attention_f32), WIDTHS(attention_f16), NAMED(attention_merge)});
}

template <typename T> T read() {
    T value;
    if (std::fread(&value, sizeof value, 1, stdin) != 1) std::exit(4);
    return value;
}

std::vector<char> read_bytes() {
    std::vector<char> bytes(read<u64>());
    if (!bytes.empty() && std::fread(bytes.data(), bytes.size(), 1, stdin) != 1) std::exit(4);
    return bytes;
}

} // namespace

void sync_block() { wait(of_block, blockDim.x); }
void sync_warp() { wait(of_warp[threadIdx.x / 32], 32); }

float from_lane_xor(float value, int mask) {
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    lanes[warp][lane] = value;
    sync_warp();
    float other = lanes[warp][lane ^ (u32)mask];
    sync_warp();
    return other;
}

int main() {
    std::vector<char> name = read_bytes();
    Index grid = {read<u32>(), read<u32>(), read<u32>()};
    blockDim = {read<u32>(), 1, 1};
    std::vector<std::vector<char>> buffers(read<u64>());
    for (auto &buffer : buffers) buffer = read_bytes();
    arguments = read_bytes();
    u64 addresses = read<u64>(); // the first so many fields are numbers of buffers
    for (u64 i = 0; i < addresses; i++) {
        u64 index;
        std::memcpy(&index, arguments.data() + 8 * i, 8);
        if (index >= buffers.size()) std::exit(4);
        u64 address = (u64)buffers[index].data();
        std::memcpy(arguments.data() + 8 * i, &address, 8);
    }
    if (!choose(std::string(name.begin(), name.end()))) return 5;
    threads.resize(blockDim.x);
    for (auto &thread : threads) thread.stack.resize(STACK_BYTES);
    for (u32 z = 0; z < grid.z; z++)
        for (u32 y = 0; y < grid.y; y++)
            for (u32 x = 0; x < grid.x; x++) {
                blockIdx = {x, y, z};
                run_block();
            }
    for (auto &buffer : buffers)
        if (!buffer.empty()) std::fwrite(buffer.data(), buffer.size(), 1, stdout);
    return 0;
}
