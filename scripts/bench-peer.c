/* Prefill and decode speed of llama.cpp on a model file: `streams` sequences, each with a prompt of its
 * own, decoded together. Best of `repeat` runs, as JSON. Built and run by bench-peer.sh.
 *
 * usage: bench_peer BACKENDS_DIR MODEL.gguf THREADS PROMPT_TOKENS OUTPUT_TOKENS STREAMS REPEAT */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "ggml-backend.h"
#include "llama.h"

static void die(const char *what) {
    fprintf(stderr, "bench_peer: %s\n", what);
    exit(1);
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void quiet(enum ggml_log_level level, const char *text, void *data) {
    (void)data;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static void add(struct llama_batch *batch, llama_token token, int position, int sequence, int wanted) {
    int i = batch->n_tokens++;
    batch->token[i] = token;
    batch->pos[i] = position;
    batch->n_seq_id[i] = 1;
    batch->seq_id[i][0] = sequence;
    batch->logits[i] = (int8_t)wanted;
}

static llama_token likeliest(const float *logits, int vocabulary) {
    int best = 0;
    for (int t = 1; t < vocabulary; t++) if (logits[t] > logits[best]) best = t;
    return best;
}

int main(int argc, char **argv) {
    if (argc != 8) die("usage: BACKENDS_DIR MODEL THREADS PROMPT_TOKENS OUTPUT_TOKENS STREAMS REPEAT");
    int threads = atoi(argv[3]), prompt = atoi(argv[4]), output = atoi(argv[5]);
    int streams = atoi(argv[6]), repeat = atoi(argv[7]);
    if (threads < 1 || prompt < 1 || output < 2 || streams < 1 || streams > 256 || repeat < 1)
        die("a number is out of range");
    llama_log_set(quiet, NULL);
    ggml_backend_load_all_from_path(argv[1]);
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(argv[2], llama_model_default_params());
    if (!model) die("the model does not load");
    int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));

    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)(streams * (prompt + output + 8));
    params.n_batch = (uint32_t)(streams * prompt);
    params.n_ubatch = 512;
    params.n_seq_max = (uint32_t)streams;
    params.n_threads = threads;
    params.n_threads_batch = threads;
    params.kv_unified = true;
    struct llama_context *context = llama_init_from_model(model, params);
    if (!context) die("no context");
    struct llama_batch batch = llama_batch_init(streams * prompt, 0, 1);

    double prefill = 0, decode = 0;
    llama_token next[256];
    for (int run = 0; run < repeat; run++) {
        llama_memory_clear(llama_get_memory(context), true);
        batch.n_tokens = 0;
        for (int s = 0; s < streams; s++)
            for (int i = 0; i < prompt; i++)
                add(&batch, 100 + (i * 31 + s * 17 + run * 7) % 20000, i, s, i == prompt - 1);
        double begun = now_s();
        if (llama_decode(context, batch)) die("prefill fails");
        llama_synchronize(context);
        double took = now_s() - begun;
        if (streams * prompt / took > prefill) prefill = streams * prompt / took;
        for (int s = 0; s < streams; s++)
            next[s] = likeliest(llama_get_logits_ith(context, (s + 1) * prompt - 1), vocabulary);
        begun = now_s();
        for (int step = 1; step < output; step++) {
            batch.n_tokens = 0;
            for (int s = 0; s < streams; s++) add(&batch, next[s], prompt + step - 1, s, 1);
            if (llama_decode(context, batch)) die("decode fails");
            for (int s = 0; s < streams; s++)
                next[s] = likeliest(llama_get_logits_ith(context, s), vocabulary);
        }
        took = now_s() - begun;
        if (streams * (output - 1) / took > decode) decode = streams * (output - 1) / took;
    }
    printf("{\"engine\": \"llama.cpp, %d threads\", \"prefill_tokens_per_s\": %.1f, "
           "\"decode_tokens_per_s\": %.1f}\n", threads, prefill, decode);
    llama_batch_free(batch);
    llama_free(context);
    llama_model_free(model);
    return 0;
}
