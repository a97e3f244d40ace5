/* Misuse of the public header, one case a run: misuse CASE model.gguf
 *
 * The model has no llama.cpp behind it: F32 tensors, which the library reads itself. */
#include "aisp_llama.h"
#include "expect.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH 8
#define CANDIDATES 4

static const char *model;

/* The call failed with `status`; the message has `text`; and so does every call after it. */
static void expect_failed(aisp *run, int status, int expected, const char *text) {
    EXPECT(status == expected);
    if (strstr(aisp_last_error(run), text) == NULL) {
        fprintf(stderr, "the message is: %s\n", aisp_last_error(run));
        exit(1);
    }
    EXPECT(aisp_begin(run) == AISP_FAILED);
    EXPECT(aisp_update(run) == AISP_FAILED);
    EXPECT(strstr(aisp_last_error(run), text) != NULL);
    EXPECT(aisp_free(run) == AISP_OK);
}

static int no_types(int type, const void *data, float *out, int64_t count) {
    (void) type, (void) data, (void) out, (void) count;
    return 0;
}

static const aisp_host host = { sizeof(aisp_host), no_types };

static aisp_options options(void) {
    aisp_options options;
    EXPECT(aisp_options_init(&options, sizeof(options)) == AISP_OK);
    options.model_path = model;
    options.horizon    = 6;
    options.samples    = CANDIDATES;
    options.iterations = 3;
    return options;
}

static aisp *create(void) {
    aisp_options o   = options();
    aisp *       run = aisp_create(&o, &host);
    if (run == NULL) {
        fprintf(stderr, "aisp_create: %s\n", aisp_last_error(NULL));
        exit(1);
    }
    return run;
}

static void expect_refused(const aisp_options *o, const aisp_host *h, const char *text) {
    EXPECT(aisp_create(o, h) == NULL);
    if (strstr(aisp_last_error(NULL), text) == NULL) {
        fprintf(stderr, "the message is: %s\n", aisp_last_error(NULL));
        exit(1);
    }
}

/* Binds and shows one row for each candidate. */
static void show(aisp *run) {
    int32_t rows[CANDIDATES] = { 0, 1, 2, 3 };
    float   z[CANDIDATES * WIDTH];
    for (int i = 0; i < CANDIDATES * WIDTH; i++) {
        z[i] = 1;
    }
    EXPECT(aisp_bind(run, rows, CANDIDATES) == AISP_OK);
    EXPECT(aisp_perturb(run, z, CANDIDATES, WIDTH) == AISP_OK);
}

static void iterate(aisp *run) {
    EXPECT(aisp_begin(run) == CANDIDATES);
    for (int position = 0; position < 3; position++) {
        show(run);
        for (int i = 0; i < CANDIDATES; i++) {
            EXPECT(aisp_accept(run, i, (i + position) % 16) == AISP_OK);
        }
    }
    for (int i = 0; i < CANDIDATES; i++) {
        EXPECT(aisp_reward(run, i, i == 2 ? NAN : i) == AISP_OK);
    }
    EXPECT(aisp_update(run) == AISP_OK);
}

static void good(void) {
    aisp *run = create();
    for (int i = 0; i < 3; i++) {
        iterate(run);
    }
    EXPECT(aisp_begin(run) == 0);
    const int32_t *tokens;
    size_t         count;
    double         reward;
    EXPECT(aisp_best(run, &tokens, &count, &reward) == AISP_OK);
    EXPECT(count == 3 && reward == 3 && tokens[0] == 3 && tokens[2] == 5);
    aisp_report report;
    report.size = sizeof(report);
    EXPECT(aisp_telemetry(run, &report) == AISP_OK);
    EXPECT(report.iterations == 3 && report.best_reward == 3 && report.sigma > 0);
    EXPECT(fabs(report.mean_reward - 4.0 / 3) < 1e-12);
    EXPECT(aisp_last_error(run)[0] == '\0');
    EXPECT(aisp_free(run) == AISP_OK);
}

/* 50 iterations, for the memory checker. */
static void fifty(void) {
    aisp_options o = options();
    o.iterations   = 50;
    aisp *run      = aisp_create(&o, &host);
    EXPECT(run != NULL);
    for (int i = 0; i < 50; i++) {
        iterate(run);
    }
    EXPECT(aisp_begin(run) == 0);
    EXPECT(aisp_free(run) == AISP_OK);
}

static void sampler_tier(void) {
    aisp_options o = options();
    o.tier         = AISP_TIER_SAMPLER;
    aisp *run      = aisp_create(&o, &host);
    EXPECT(run != NULL && aisp_begin(run) == CANDIDATES);
    /* The same shift whatever the order, and whoever asks first. */
    aisp_token all[16], some[2];
    for (int i = 0; i < 16; i++) {
        all[i].id    = 15 - i;
        all[i].logit = 2;
    }
    EXPECT(aisp_apply(run, 1, all, 16) == AISP_OK);
    some[0].id = 3, some[0].logit = 2;
    some[1].id = 7, some[1].logit = 0;
    EXPECT(aisp_apply(run, 1, some, 2) == AISP_OK);
    EXPECT(some[0].logit == all[12].logit && fabsf(some[1].logit + 2 - all[8].logit) < 1e-5f);
    EXPECT(some[0].logit != 2);
    EXPECT(aisp_accept(run, 1, 3) == AISP_OK);
    int32_t row = 0;
    expect_failed(run, aisp_bind(run, &row, 1), AISP_BAD_ORDER, "sampler tier");
    /* A token that is accepted twice, or that the sampler did not see. */
    run = aisp_create(&o, &host);
    EXPECT(run != NULL && aisp_begin(run) == CANDIDATES);
    EXPECT(aisp_apply(run, 0, some, 2) == AISP_OK && aisp_accept(run, 0, 3) == AISP_OK);
    expect_failed(run, aisp_accept(run, 0, 3), AISP_BAD_ORDER, "llama_sampler_sample");
}

static void null_handle(void) {
    EXPECT(aisp_begin(NULL) == AISP_BAD_HANDLE);
    EXPECT(strstr(aisp_last_error(NULL), "NULL") != NULL);
    EXPECT(aisp_bind(NULL, NULL, 0) == AISP_BAD_HANDLE);
    EXPECT(aisp_perturb(NULL, NULL, 0, 0) == AISP_BAD_HANDLE);
    EXPECT(aisp_apply(NULL, 0, NULL, 0) == AISP_BAD_HANDLE);
    EXPECT(aisp_accept(NULL, 0, 0) == AISP_BAD_HANDLE);
    EXPECT(aisp_reset(NULL, 0) == AISP_BAD_HANDLE);
    EXPECT(aisp_reward(NULL, 0, 0) == AISP_BAD_HANDLE);
    EXPECT(aisp_update(NULL) == AISP_BAD_HANDLE);
    EXPECT(aisp_best(NULL, NULL, NULL, NULL) == AISP_BAD_HANDLE);
    EXPECT(aisp_telemetry(NULL, NULL) == AISP_BAD_HANDLE);
    EXPECT(aisp_free(NULL) == AISP_OK);
    EXPECT(aisp_options_init(NULL, sizeof(aisp_options)) == AISP_BAD_ARGUMENT);
    EXPECT(aisp_version()[0] != '\0');
}

static void foreign_handle(void) {
    int local;
    EXPECT(aisp_update((aisp *) &local) == AISP_BAD_HANDLE);
    EXPECT(aisp_free((aisp *) &local) == AISP_BAD_HANDLE);
}

static void double_free(void) {
    aisp *run = create();
    EXPECT(aisp_free(run) == AISP_OK);
    EXPECT(aisp_free(run) == AISP_BAD_HANDLE);
    EXPECT(aisp_begin(run) == AISP_BAD_HANDLE);
    /* A new run does not take the old one's handle. */
    aisp *next = create();
    EXPECT(next != run && aisp_begin(run) == AISP_BAD_HANDLE);
    EXPECT(aisp_free(next) == AISP_OK);
}

static void null_arguments(void) {
    aisp_options o = options();
    expect_refused(NULL, &host, "NULL");
    expect_refused(&o, NULL, "NULL");
    aisp_host without = { sizeof(without), NULL };
    expect_refused(&o, &without, "host.decode is NULL");
    o.model_path = NULL;
    expect_refused(&o, &host, "model_path is NULL");
    aisp *run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    expect_failed(run, aisp_bind(run, NULL, 3), AISP_BAD_ARGUMENT, "no rows");
    run = create();
    expect_failed(run, aisp_best(run, NULL, NULL, NULL), AISP_BAD_ARGUMENT, "NULL");
    run = create();
    expect_failed(run, aisp_telemetry(run, NULL), AISP_BAD_ARGUMENT, "NULL");
}

static void wrong_sizes(void) {
    aisp_options o = options();
    o.size         = 8;
    expect_refused(&o, &host, "size");
    EXPECT(aisp_options_init(&o, 8) == AISP_BAD_ARGUMENT && o.size == 8);
    aisp *      run = create();
    aisp_report report;
    report.size = 3;
    expect_failed(run, aisp_telemetry(run, &report), AISP_BAD_ARGUMENT, "size");
    run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    int32_t row        = 0;
    float   z[WIDTH * 2] = { 0 };
    EXPECT(aisp_bind(run, &row, 1) == AISP_OK);
    expect_failed(run, aisp_perturb(run, z, 2, WIDTH - 1), AISP_BAD_ARGUMENT, "width 7");
    run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    EXPECT(aisp_bind(run, &row, 1) == AISP_OK);
    expect_failed(run, aisp_perturb(run, z, SIZE_MAX, SIZE_MAX), AISP_BAD_ARGUMENT, "too large");
}

static void bad_options(void) {
    aisp_options o = options();
    o.horizon      = 0;
    expect_refused(&o, &host, "horizon");
    o         = options();
    o.samples = 0;
    expect_refused(&o, &host, "samples");
    o      = options();
    o.tier = 7;
    expect_refused(&o, &host, "tier 7");
    o        = options();
    o.method = -1;
    expect_refused(&o, &host, "method -1");
    o       = options();
    o.sigma = NAN;
    expect_refused(&o, &host, "sigma");
    o        = options();
    o.method = AISP_METHOD_AISP;
    o.alpha  = 2;
    expect_refused(&o, &host, "alpha");
    o       = options();
    o.fresh = -1;
    expect_refused(&o, &host, "fresh");
    o         = options();
    o.horizon = UINT32_MAX;
    expect_refused(&o, &host, "horizon is 4294967295");
    o         = options();
    o.samples = UINT32_MAX;
    expect_refused(&o, &host, "samples is 4294967295");
}

static void bad_model(void) {
    aisp_options o = options();
    o.model_path   = "/no/such/model.gguf";
    expect_refused(&o, &host, "/no/such/model.gguf");
    o.model_path = "\xff\xfe";
    expect_refused(&o, &host, "UTF-8");
}

static void wrong_order(void) {
    int32_t rows[2] = { 0, 1 };
    float   z[CANDIDATES * WIDTH] = { 0 };
    aisp *  run     = create();
    expect_failed(run, aisp_update(run), AISP_BAD_ORDER, "aisp_begin");
    run = create();
    expect_failed(run, aisp_bind(run, rows, 2), AISP_BAD_ORDER, "aisp_begin");
    run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    EXPECT(aisp_begin(run) == AISP_BAD_ORDER);
    EXPECT(aisp_free(run) == AISP_OK);
    run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    expect_failed(run, aisp_update(run), AISP_BAD_ORDER, "aisp_reward");
    run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    expect_failed(run, aisp_reward(run, 0, 1), AISP_BAD_ORDER, "no token");
    /* A first token off the logits of the prompt, whose row was never bound. */
    run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    expect_failed(run, aisp_accept(run, 0, 1), AISP_BAD_ORDER, "prompt's last token out");
    run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    aisp_token token = { 1, 0, 0 };
    expect_failed(run, aisp_apply(run, 0, &token, 1), AISP_BAD_ORDER, "once for each candidate");
    /* A later token whose row was not. */
    run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    show(run);
    EXPECT(aisp_accept(run, 0, 1) == AISP_OK);
    expect_failed(run, aisp_accept(run, 0, 1), AISP_BAD_ORDER, "no row was bound to it");
    /* Bound rows that were never decoded: no eval callback. */
    run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    EXPECT(aisp_bind(run, rows, 2) == AISP_OK);
    expect_failed(run, aisp_apply(run, 0, &token, 1), AISP_BAD_ORDER, "cb_eval");
    /* Fewer rows than were bound, as where an ended candidate's is left out, and more. */
    run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    EXPECT(aisp_bind(run, rows, 2) == AISP_OK);
    expect_failed(run, aisp_perturb(run, z, 1, WIDTH), AISP_BAD_ORDER, "bound to -1 once it has ended");
    run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    EXPECT(aisp_bind(run, rows, 2) == AISP_OK);
    expect_failed(run, aisp_perturb(run, z, 3, WIDTH), AISP_BAD_ORDER, "bind every row");
    /* A decode that failed before it came to the rows may be tried again. */
    run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    EXPECT(aisp_bind(run, rows, 2) == AISP_OK);
    show(run);
    EXPECT(aisp_apply(run, 3, &token, 1) == AISP_OK);
    EXPECT(aisp_free(run) == AISP_OK);
    /* A second reward. */
    run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    show(run);
    EXPECT(aisp_accept(run, 0, 1) == AISP_OK && aisp_reward(run, 0, 1) == AISP_OK);
    expect_failed(run, aisp_reward(run, 0, 1), AISP_BAD_ORDER, "its reward already");
}

static void out_of_range(void) {
    int32_t rows[2] = { 0, 0 };
    aisp *  run     = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    expect_failed(run, aisp_bind(run, rows, 2), AISP_BAD_ARGUMENT, "two rows");
    run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    rows[0] = CANDIDATES;
    expect_failed(run, aisp_bind(run, rows, 1), AISP_BAD_ARGUMENT, "candidate 4");
    run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    show(run);
    expect_failed(run, aisp_accept(run, 0, 16), AISP_BAD_ARGUMENT, "token 16");
    run = create();
    EXPECT(aisp_begin(run) == CANDIDATES);
    expect_failed(run, aisp_accept(run, -2, 0), AISP_BAD_ARGUMENT, "candidate -2");
}

/* A reset between iterations, or twice, is no misuse; inside one it starts the candidate anew. */
static void resets(void) {
    aisp *run = create();
    EXPECT(aisp_reset(run, 0) == AISP_OK && aisp_reset(run, 99) == AISP_OK);
    EXPECT(aisp_begin(run) == CANDIDATES);
    show(run);
    EXPECT(aisp_accept(run, 0, 1) == AISP_OK && aisp_reset(run, 0) == AISP_OK);
    show(run);
    EXPECT(aisp_accept(run, 0, 2) == AISP_OK && aisp_reward(run, 0, 5) == AISP_OK);
    const int32_t *tokens;
    size_t         count;
    double         reward;
    EXPECT(aisp_best(run, &tokens, &count, &reward) == AISP_OK);
    EXPECT(count == 1 && tokens[0] == 2);
    EXPECT(aisp_free(run) == AISP_OK);
}

static void *hammer(void *argument) {
    aisp *run = argument;
    for (int i = 0; i < 40; i++) {
        int32_t rows[CANDIDATES] = { 0, 1, 2, 3 };
        float   z[CANDIDATES * WIDTH];
        (void) aisp_begin(run);
        (void) aisp_bind(run, rows, CANDIDATES);
        (void) aisp_perturb(run, z, CANDIDATES, WIDTH);
        (void) aisp_accept(run, i % CANDIDATES, i % 16);
        (void) aisp_update(run);
        (void) aisp_last_error(run);
        if (i == 30) {
            (void) aisp_free(run);
        }
    }
    return NULL;
}

/* Two threads on one handle, one of them freeing it under the other: statuses, no more. */
static void two_threads(void) {
    for (int round = 0; round < 2000; round++) {
        aisp *    run = create();
        pthread_t threads[2];
        for (int i = 0; i < 2; i++) {
            EXPECT(pthread_create(&threads[i], NULL, hammer, run) == 0);
        }
        for (int i = 0; i < 2; i++) {
            EXPECT(pthread_join(threads[i], NULL) == 0);
        }
        EXPECT(aisp_free(run) == AISP_BAD_HANDLE);
    }
}

/* Counts that nothing in memory has: refused before anything is allocated or read. */
static void large_counts(void) {
    static const size_t counts[] = { (size_t) 1 << 40, SIZE_MAX / 4, SIZE_MAX };
    int32_t             row      = 0;
    for (size_t i = 0; i < 3; i++) {
        aisp *run = create();
        EXPECT(aisp_begin(run) == CANDIDATES);
        expect_failed(run, aisp_bind(run, &row, counts[i]), AISP_BAD_ARGUMENT, "rows; give at most");
        run = create();
        EXPECT(aisp_begin(run) == CANDIDATES);
        aisp_token token = { 1, 0, 0 };
        expect_failed(run, aisp_apply(run, 0, &token, counts[i]), AISP_BAD_ARGUMENT, "has 16");
    }
    EXPECT(aisp_prompt_seed(7, &row, SIZE_MAX) == aisp_prompt_seed(7, NULL, 0));
}

/* Each within its own range, and together more than a program wants to give. */
static void large_options(void) {
    aisp_options o = options();
    o.samples      = 4096;
    o.horizon      = 131072;
    expect_refused(&o, &host, "product is at most");
}

static pthread_key_t at_exit;

/* The library's own place for the thread's error may be gone by now. */
static void late(void *stale) {
    static int again = 0;
    if (again++ < 2) {
        EXPECT(pthread_setspecific(at_exit, stale) == 0);
    }
    EXPECT(aisp_free(stale) == AISP_BAD_HANDLE);
    EXPECT(aisp_begin(NULL) == AISP_BAD_HANDLE);
    EXPECT(aisp_create(NULL, NULL) == NULL);
    EXPECT(aisp_last_error(NULL) != NULL);
    aisp *run = create();
    EXPECT(aisp_update(run) == AISP_BAD_ORDER && aisp_last_error(run)[0] != '\0');
    EXPECT(aisp_free(run) == AISP_OK);
}

static void *leave(void *stale) {
    EXPECT(pthread_setspecific(at_exit, stale) == 0);
    EXPECT(aisp_begin(stale) == AISP_BAD_HANDLE);
    return NULL;
}

/* Calls from the destructors of a thread that ends. */
static void thread_exit(void) {
    aisp *    run = create();
    pthread_t thread;
    EXPECT(aisp_free(run) == AISP_OK);
    EXPECT(pthread_key_create(&at_exit, late) == 0);
    EXPECT(pthread_create(&thread, NULL, leave, run) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);
}

static void refused_large(void) {
    aisp_options o = options();
    expect_refused(&o, &host, "are read");
}

/* Neither a spread of nothing nor logits that are no numbers. */
static void refused_infinite(void) {
    aisp_options o = options();
    expect_refused(&o, &host, "the file is damaged");
    /* With noise of a given strength and no regression nobody has to look at all rows. */
    o.sigma   = 1;
    o.method  = AISP_METHOD_AISP;
    o.tier    = AISP_TIER_SAMPLER;
    aisp *run = aisp_create(&o, &host);
    EXPECT(run != NULL && aisp_begin(run) == CANDIDATES);
    aisp_token token = { 15, 0, 0 };
    expect_failed(run, aisp_apply(run, 0, &token, 1), AISP_BAD_MODEL, "the file is damaged");
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {
        { "good", good },
        { "fifty", fifty },
        { "sampler_tier", sampler_tier },
        { "null_handle", null_handle },
        { "foreign_handle", foreign_handle },
        { "double_free", double_free },
        { "null_arguments", null_arguments },
        { "wrong_sizes", wrong_sizes },
        { "bad_options", bad_options },
        { "bad_model", bad_model },
        { "wrong_order", wrong_order },
        { "out_of_range", out_of_range },
        { "resets", resets },
        { "two_threads", two_threads },
        { "large_counts", large_counts },
        { "large_options", large_options },
        { "thread_exit", thread_exit },
        { "refused_large", refused_large },
        { "refused_infinite", refused_infinite },
    };
    if (argc != 3) {
        return 2;
    }
    model = argv[2];
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        if (strcmp(cases[i].name, argv[1]) == 0) {
            cases[i].run();
            return 0;
        }
    }
    return 2;
}
