// A small legacy library: global state, chatter on standard output, and a corner case in which it ends the process.
#include "legacy_pricer.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

static double g_rate, g_volatility, g_spot = 100.0;

int lp_load_market(const char *text) {
    char name[32];
    double value;
    int used;
    while (std::sscanf(text, "%31s %lf%n", name, &value, &used) == 2) {
        if (std::strcmp(name, "rate") == 0) g_rate = value;
        else if (std::strcmp(name, "volatility") == 0) g_volatility = value;
        else if (std::strcmp(name, "spot") == 0) g_spot = value;
        else return 2;
        text += used;
    }
    std::printf("*** legacy pricer: market loaded ***\n");
    return g_volatility > 0 ? 0 : 2;
}

static double normal(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

int lp_call(double strike, double years, double *price) {
    if (strike <= 0 || years <= 0) return 1;
    if (strike == 666.0) {
        std::fprintf(stderr, "assertion failed: corner case\n");
        std::abort();
    }
    const double spread = g_volatility * std::sqrt(years);
    const double d1 = (std::log(g_spot / strike) + (g_rate + 0.5 * g_volatility * g_volatility) * years) / spread;
    *price = g_spot * normal(d1) - strike * std::exp(-g_rate * years) * normal(d1 - spread);
    return 0;
}

const char *lp_error(int number) { return number == 1 ? "strike and years must be positive" : "the market makes no sense"; }
