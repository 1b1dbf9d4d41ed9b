/* Greedy tokens of llama.cpp for a list of prompts, as JSON: the reference that the llm service's
 * tests compare with. Built and run by llm-fixture.sh; says nothing about speed.
 *
 * usage: llama_greedy BACKENDS_DIR MODEL.gguf TOKENS_PER_PROMPT PROMPT_FILE...
 * Each prompt file is one prompt, byte for byte. Special tokens in it are parsed; the one that begins a
 * sequence is added where the file asks for it.
 * Generation goes on after an end token, so that every prompt gives the same number of tokens. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ggml-backend.h"
#include "llama.h"

static void die(const char *what) {
    fprintf(stderr, "llama_greedy: %s\n", what);
    exit(1);
}

static char *read_all(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    static char text[1 << 20];
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = 0;
    return text;
}

static void print_json_string(const char *s) {
    putchar('"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') printf("\\%c", c);
        else if (c < 0x20) printf("\\u%04x", c);
        else putchar(c);
    }
    putchar('"');
}

static void quiet(enum ggml_log_level level, const char *text, void *data) {
    (void)data;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

int main(int argc, char **argv) {
    if (argc < 5) die("usage: BACKENDS_DIR MODEL.gguf TOKENS PROMPT_FILE...");
    int wanted = atoi(argv[3]);
    llama_log_set(quiet, NULL);
    ggml_backend_load_all_from_path(argv[1]);
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(argv[2], llama_model_default_params());
    if (!model) die("the model does not load");
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    int vocabulary = llama_vocab_n_tokens(vocab);
    printf("{\n  \"cases\": [\n");
    for (int arg = 4; arg < argc; arg++) {
        const char *prompt = read_all(argv[arg]);
        static llama_token tokens[8192];
        int begins = llama_vocab_get_add_bos(vocab);
        int n = llama_tokenize(vocab, prompt, (int)strlen(prompt), tokens, 4096, begins, true);
        if (n <= 0) die("the prompt does not tokenize");
        struct llama_context_params params = llama_context_default_params();
        params.n_ctx = 4096;
        params.n_batch = 4096;
        params.n_threads = 1;
        params.n_threads_batch = 1;
        struct llama_context *context = llama_init_from_model(model, params);
        if (!context) die("no context");
        if (llama_decode(context, llama_batch_get_one(tokens, n))) die("prefill fails");
        printf("    {\n      \"prompt\": ");
        print_json_string(prompt);
        printf(",\n      \"prompt_tokens\": [");
        for (int i = 0; i < n; i++) printf("%s%d", i ? ", " : "", tokens[i]);
        printf("],\n      \"output_tokens\": [");
        static float gaps[8192];
        for (int i = 0; i < wanted; i++) {
            const float *logits = llama_get_logits_ith(context, -1);
            int best = 0;
            for (int t = 1; t < vocabulary; t++) if (logits[t] > logits[best]) best = t;
            float second = -1e30f;
            for (int t = 0; t < vocabulary; t++)
                if (t != best && logits[t] > second) second = logits[t];
            gaps[i] = logits[best] - second;
            printf("%s%d", i ? ", " : "", best);
            llama_token next = best;
            if (llama_decode(context, llama_batch_get_one(&next, 1))) die("decode fails");
        }
        printf("],\n      \"logit_gaps\": [");
        for (int i = 0; i < wanted; i++) printf("%s%.4f", i ? ", " : "", gaps[i]);
        printf("]\n    }%s\n", arg + 1 < argc ? "," : "");
        llama_free(context);
    }
    printf("  ]\n}\n");
    return 0;
}
