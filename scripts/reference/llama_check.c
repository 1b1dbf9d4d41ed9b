/* What llama.cpp computes, for the llm service's checks: logits, tokens, perplexity. Built by
 * families.py and agreement.sh; says nothing about speed.
 *
 * usage: llama_check BACKENDS_DIR MODEL.gguf logits ID...
 *            one line of logits for each of the tokens, f32 KV cache
 *        llama_check BACKENDS_DIR MODEL.gguf tokens FILE
 *            FILE holds texts, each ended by a zero byte; two lines of ids for each text: special
 *            tokens not parsed, and parsed; nothing added
 *        llama_check BACKENDS_DIR MODEL.gguf perplexity CONTEXT ID_FILE
 *            the tokens of ID_FILE in pieces of CONTEXT, the first of each replaced by the token that
 *            begins a sequence where the model wants one; prints the sum of the negative
 *            log-probabilities of the second half of each piece, their count, and that token or -1 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ggml-backend.h"
#include "llama.h"

#define TOKENS_MAX (1 << 20)

static llama_token tokens[TOKENS_MAX];

static void die(const char *what) {
    fprintf(stderr, "llama_check: %s\n", what);
    exit(1);
}

static void quiet(enum ggml_log_level level, const char *text, void *data) {
    (void)data;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static struct llama_context *context_of(struct llama_model *model, int n, enum ggml_type kv) {
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = n < 256 ? 256 : n;
    params.n_batch = params.n_ctx;
    params.n_ubatch = params.n_ctx;
    params.n_threads = 1;
    params.n_threads_batch = 1;
    params.type_k = kv;
    params.type_v = kv;
    params.flash_attn_type = kv == GGML_TYPE_F32 ? LLAMA_FLASH_ATTN_TYPE_DISABLED : LLAMA_FLASH_ATTN_TYPE_AUTO;
    struct llama_context *context = llama_init_from_model(model, params);
    if (!context) die("no context");
    return context;
}

/* All rows of one sequence want logits. */
static void decode(struct llama_context *context, const llama_token *ids, int n) {
    struct llama_batch batch = llama_batch_init(n, 0, 1);
    for (int i = 0; i < n; i++) {
        batch.token[i] = ids[i];
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    batch.n_tokens = n;
    if (llama_decode(context, batch)) die("decode fails");
    llama_batch_free(batch);
}

static void logits(struct llama_model *model, int vocabulary, char **ids, int n) {
    for (int i = 0; i < n; i++) tokens[i] = atoi(ids[i]);
    struct llama_context *context = context_of(model, n, GGML_TYPE_F32);
    decode(context, tokens, n);
    for (int i = 0; i < n; i++) {
        const float *row = llama_get_logits_ith(context, i);
        for (int t = 0; t < vocabulary; t++) printf(t ? " %.7g" : "%.7g", row[t]);
        putchar('\n');
    }
    llama_free(context);
}

static void tokenize(const struct llama_vocab *vocab, const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    static char text[1 << 22];
    size_t length = fread(text, 1, sizeof text, file), at = 0;
    fclose(file);
    while (at < length) {
        size_t bytes = strlen(text + at);
        for (int special = 0; special < 2; special++) {
            int n = llama_tokenize(vocab, text + at, (int)bytes, tokens, TOKENS_MAX, false, special);
            if (n < 0) die("a text does not tokenize");
            for (int i = 0; i < n; i++) printf(i ? " %d" : "%d", tokens[i]);
            putchar('\n');
        }
        at += bytes + 1;
    }
}

static void perplexity(struct llama_model *model, int size, const char *path) {
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    int vocabulary = llama_vocab_n_tokens(vocab);
    int begin = llama_vocab_get_add_bos(vocab) ? llama_vocab_bos(vocab) : -1;
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    int n = 0;
    while (n < TOKENS_MAX && fscanf(file, "%d", &tokens[n]) == 1) n++;
    fclose(file);
    struct llama_context *context = context_of(model, size, GGML_TYPE_F16);
    double sum = 0;
    int count = 0;
    for (int start = 0; start + size <= n; start += size) {
        llama_memory_clear(llama_get_memory(context), true);
        if (begin >= 0) tokens[start] = begin;
        decode(context, tokens + start, size);
        for (int i = size / 2; i + 1 < size; i++) {
            const float *row = llama_get_logits_ith(context, i);
            double largest = row[0], all = 0;
            for (int t = 1; t < vocabulary; t++) if (row[t] > largest) largest = row[t];
            for (int t = 0; t < vocabulary; t++) all += exp(row[t] - largest);
            sum += largest + log(all) - row[tokens[start + i + 1]];
            count++;
        }
    }
    printf("%.9g %d %d\n", sum, count, begin);
    llama_free(context);
}

int main(int argc, char **argv) {
    if (argc < 5) die("usage: BACKENDS_DIR MODEL.gguf logits|tokens|perplexity ...");
    llama_log_set(quiet, NULL);
    ggml_backend_load_all_from_path(argv[1]);
    llama_backend_init();
    struct llama_model_params params = llama_model_default_params();
    params.vocab_only = !strcmp(argv[3], "tokens");
    struct llama_model *model = llama_model_load_from_file(argv[2], params);
    if (!model) die("the model does not load");
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    int vocabulary = llama_vocab_n_tokens(vocab);
    if (!strcmp(argv[3], "logits")) logits(model, vocabulary, argv + 4, argc - 4);
    else if (!strcmp(argv[3], "tokens")) tokenize(vocab, argv[4]);
    else if (!strcmp(argv[3], "perplexity") && argc > 5)
        perplexity(model, atoi(argv[4]), argv[5]);
    else die("logits, tokens or perplexity");
    return 0;
}
