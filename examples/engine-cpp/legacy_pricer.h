/* The interface of a library as banks have them: old, in C's manner, with its state in the library and its news on standard output. */
#ifndef LEGACY_PRICER_H
#define LEGACY_PRICER_H

#ifdef __cplusplus
extern "C" {
#endif

/* Reads lines of `name value` (rate, volatility, spot). 0 when all is well. */
int lp_load_market(const char *text);

/* The price of a European call, Black and Scholes 1973. Returns 0, or the number of an error. */
int lp_call(double strike, double years, double *price);

/* What the number of an error means. */
const char *lp_error(int number);

#ifdef __cplusplus
}
#endif
#endif
