// SPDX-License-Identifier: MIT
/* Ranges of numbers as digits. Texts have no exponent, no leading zeros and no "-0". */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/grammar/grammar_int.h"

#define INT_MAX_DIGITS	18
#define INT_LIMIT	1000000000000000000ll /* exclusive */
#define FRAC_MAX	20
#define ENUMERATE_MAX	4096 /* multiples within bounds that are listed */
#define MULTIPLE_MAX	200
#define MULTIPLE_DIGITS 15

/* A decimal without sign. */
struct dec {
	long long whole;
	char frac[FRAC_MAX + 1]; /* digits, no zeros at the end */
};

static gnode digits(struct gb *b, char lo, char hi)
{
	return lo <= hi ? gb_range(b, (uint8_t)lo, (uint8_t)hi) : 0;
}

/* ---- integers of the same length -------------------------------------------------------------- */

static gnode free_digits(struct gb *b, size_t n)
{
	return gb_rep(b, digits(b, '0', '9'), (uint32_t)n, (uint32_t)n);
}

/* Digit strings as long as `lim` that are not below (`low`) or not above it. */
static gnode one_sided(struct gb *b, const char *lim, bool low)
{
	gnode same, other;

	if (!*lim)
		return gb_empty(b);
	same = gb_seq(b, digits(b, *lim, *lim), one_sided(b, lim + 1, low));
	other = low ? digits(b, (char)(*lim + 1), '9') : digits(b, '0', (char)(*lim - 1));
	return gb_alt(b, same, gb_seq(b, other, free_digits(b, strlen(lim + 1))));
}

static gnode between(struct gb *b, const char *lo, const char *hi)
{
	if (!*lo)
		return gb_empty(b);
	if (*lo == *hi)
		return gb_seq(b, digits(b, *lo, *lo), between(b, lo + 1, hi + 1));
	return gb_alt(b, gb_seq(b, digits(b, *lo, *lo), one_sided(b, lo + 1, true)),
		      gb_seq(b, digits(b, (char)(*lo + 1), (char)(*hi - 1)),
			     free_digits(b, strlen(lo + 1))),
		      gb_seq(b, digits(b, *hi, *hi), one_sided(b, hi + 1, false)));
}

/* lo .. hi, neither negative */
static gnode whole_range(struct gb *b, long long lo, long long hi)
{
	gnode alt[INT_MAX_DIGITS + 1];
	long long from = 0, to = 9;
	size_t n = 0;

	for (int len = 1; len <= INT_MAX_DIGITS; len++) {
		char x[24], y[24];

		if (lo <= to && hi >= from) {
			snprintf(x, sizeof(x), "%lld", lo > from ? lo : from);
			snprintf(y, sizeof(y), "%lld", hi < to ? hi : to);
			alt[n++] = between(b, x, y);
		}
		from = to + 1;
		to = len < INT_MAX_DIGITS ? to * 10 + 9 : to;
	}
	return gb_list(b, GN_ALT, alt, n);
}

/* ---- fractions ------------------------------------------------------------------------------- */

struct frac {
	struct gb *b;
	const char *lo, *hi; /* digits; NULL: no bound */
	bool lo_excl, hi_excl;
	int max;
};

static bool all_zero(const char *s)
{
	return strspn(s, "0") == strlen(s);
}

static const char *behind(const char *s, int pos)
{
	return (size_t)pos < strlen(s) ? s + pos : "";
}

static bool may_stop(const struct frac *f, int pos, bool at_lo, bool at_hi)
{
	if (at_lo && (!all_zero(behind(f->lo, pos)) || f->lo_excl))
		return false;
	return !at_hi || !all_zero(behind(f->hi, pos)) || !f->hi_excl;
}

/* Digits from `pos` on; at_lo, at_hi: those before are the bound's own. */
static gnode frac_digits_from(const struct frac *f, int pos, bool at_lo, bool at_hi)
{
	gnode alt[12];
	size_t n = 0;

	if (!at_lo && !at_hi)
		return gb_rep(f->b, digits(f->b, '0', '9'), pos ? 0 : 1, (uint32_t)(f->max - pos));
	if (pos && may_stop(f, pos, at_lo, at_hi))
		alt[n++] = gb_empty(f->b);
	for (char d = '0'; d <= '9' && pos < f->max; d++) {
		char lo = at_lo && *behind(f->lo, pos) ? *behind(f->lo, pos) : '0';
		char hi = at_hi ? (*behind(f->hi, pos) ? *behind(f->hi, pos) : '0') : '9';

		if ((at_lo && d < lo) || (at_hi && d > hi))
			continue;
		alt[n++] = gb_seq(f->b, digits(f->b, d, d),
				  frac_digits_from(f, pos + 1, at_lo && d == lo, at_hi && d == hi));
	}
	return gb_list(f->b, GN_ALT, alt, n);
}

/* Nothing, or '.' and digits. */
static gnode fraction(const struct frac *f)
{
	bool at_lo = f->lo, at_hi = f->hi;
	gnode none = may_stop(f, 0, at_lo, at_hi) ? gb_empty(f->b) : 0;

	if (!f->max)
		return none;
	return gb_alt(f->b, none,
		      gb_seq(f->b, gb_lit(f->b, "."), frac_digits_from(f, 0, at_lo, at_hi)));
}

/* Decimals from lo to hi, without sign. */
static gnode decimal_range(struct gb *b, const struct dec *lo, bool lo_excl, const struct dec *hi,
			   bool hi_excl, int max_frac)
{
	struct frac f = {.b = b, .max = max_frac};
	gnode at_lo, middle, at_hi;
	char text[24];

	if (lo->whole > hi->whole)
		return 0;
	f.lo = lo->frac;
	f.lo_excl = lo_excl;
	snprintf(text, sizeof(text), "%lld", lo->whole);
	if (lo->whole == hi->whole) {
		f.hi = hi->frac;
		f.hi_excl = hi_excl;
		/* compared digit by digit, so the order of equal lengths is that of the numbers */
		if (strcmp(lo->frac, hi->frac) > 0)
			return 0;
		return gb_seq(b, gb_lit(b, text), fraction(&f));
	}
	at_lo = gb_seq(b, gb_lit(b, text), fraction(&f));
	f.lo = NULL;
	middle = gb_seq(b, whole_range(b, lo->whole + 1, hi->whole - 1), fraction(&f));
	if (lo->whole + 1 > hi->whole - 1)
		middle = 0;
	f.hi = hi->frac;
	f.hi_excl = hi_excl;
	snprintf(text, sizeof(text), "%lld", hi->whole);
	at_hi = hi->whole < INT_LIMIT ? gb_seq(b, gb_lit(b, text), fraction(&f)) : 0;
	return gb_alt(b, at_lo, middle, at_hi);
}

/* ---- bounds ---------------------------------------------------------------------------------- */

/* |x| as decimal; false: more digits than fit. Larger than all we write: INT_LIMIT. */
static bool to_dec(const json_t *x, struct dec *d, bool *neg)
{
	char text[400], *dot;
	double v = json_number_value(x);

	*neg = v < 0;
	memset(d, 0, sizeof(*d));
	if (fabs(v) >= 1e18) {
		d->whole = INT_LIMIT;
		return true;
	}
	if (json_is_integer(x)) {
		d->whole = llabs(json_integer_value(x));
		return true;
	}
	/* the shortest digits that give the number back */
	for (int p = 0; p <= FRAC_MAX; p++) {
		snprintf(text, sizeof(text), "%.*f", p, fabs(v));
		if (strtod(text, NULL) == fabs(v))
			break;
	}
	if (strtod(text, NULL) != fabs(v))
		return false;
	d->whole = strtoll(text, NULL, 10);
	dot = strchr(text, '.');
	if (dot) {
		size_t n = strlen(++dot);

		while (n && dot[n - 1] == '0')
			n--;
		memcpy(d->frac, dot, n);
	}
	return true;
}

/*
 * Digits behind the point near a bound: as many as a double tells from it, or what is above an
 * exclusive bound would be read as the bound.
 */
static int digits_near(const struct dec *bound, int max_frac)
{
	int n = 15, own = (int)strlen(bound->frac);

	for (long long w = bound->whole; w; w /= 10)
		n--;
	n = n < own ? own : n;
	return n < max_frac ? n : max_frac;
}

gnode gb_number_range(struct gb *b, const struct bounds *r, int max_frac, const char **why)
{
	struct dec zero = {0}, most = {.whole = INT_LIMIT}, lo = {0}, hi = {0};
	bool lo_neg = true, hi_neg = false;
	gnode pos = 0, neg = 0;

	if (max_frac > FRAC_MAX)
		max_frac = FRAC_MAX;
	lo = hi = most;
	if ((r->min && !to_dec(r->min, &lo, &lo_neg)) ||
	    (r->max && !to_dec(r->max, &hi, &hi_neg))) {
		*why = "a bound of more than 20 digits behind the point is not supported";
		return 0;
	}
	if (r->min)
		max_frac = digits_near(&lo, max_frac);
	if (r->max)
		max_frac = digits_near(&hi, max_frac);
	if (!hi_neg) {
		bool none = lo_neg || !r->min;

		pos = decimal_range(b, none ? &zero : &lo, none ? false : r->min_excl, &hi,
				    r->max ? r->max_excl : true, max_frac);
	}
	if (lo_neg) /* |x| from |max| (or just above 0) to |min| */
		neg = decimal_range(b, hi_neg ? &hi : &zero, hi_neg ? r->max_excl : true, &lo,
				    r->min ? r->min_excl : true, max_frac);
	return gb_alt(b, pos, gb_seq(b, gb_lit(b, "-"), neg));
}

/* ---- multiples ------------------------------------------------------------------------------- */

int frac_digits(double m)
{
	double x = 1;

	for (int k = 0; k <= 15; k++, x /= 10) {
		if (fabs(m - x) <= x * 1e-12)
			return k;
	}
	return -1;
}

static gnode listed(struct gb *b, long long m, long long lo, long long hi)
{
	size_t n = (size_t)((hi - lo) / m) + 2, k = 0;
	struct gstr *v = calloc(n, sizeof(*v));
	char *text = malloc(n * 24);
	gnode r = 0;

	if (v && text) {
		for (long long x = lo; x <= hi && k < n; x += m, k++) {
			v[k].s = text + k * 24;
			v[k].n = (size_t)snprintf(text + k * 24, 24, "%lld", x);
		}
		r = gb_strings(b, v, k);
	} else {
		gb_fail(b, -ENOMEM, "grammar: out of memory: free some");
	}
	free(v);
	free(text);
	return r;
}

/* By remainders: a rule for each and each number of digits that may still come. */
static gnode by_remainder(struct gb *b, long long m)
{
	uint32_t n = (uint32_t)m, *now = calloc(n, sizeof(*now)), *less = calloc(n, sizeof(*less));
	gnode alt[11], first[9], r = 0;

	for (int left = 0; left < MULTIPLE_DIGITS && now && less && !b->rc; left++) {
		for (uint32_t x = 0; x < n && !b->rc; x++) {
			size_t k = 0;

			now[x] = gb_rule(b);
			if (!x)
				alt[k++] = gb_empty(b);
			for (char d = '0'; d <= '9' && left; d++)
				alt[k++] =
					gb_seq(b, digits(b, d, d),
					       gb_call(b,
						       less[(x * 10 + (uint32_t)(d - '0')) % n]));
			gb_define(b, now[x], gb_list(b, GN_ALT, alt, k));
		}
		memcpy(less, now, n * sizeof(*now));
	}
	if (!now || !less)
		gb_fail(b, -ENOMEM, "grammar: out of memory: free some");
	for (char d = '1'; d <= '9' && !b->rc; d++)
		first[d - '1'] =
			gb_seq(b, digits(b, d, d), gb_call(b, less[(uint32_t)(d - '0') % n]));
	if (!b->rc)
		r = gb_alt(b, gb_lit(b, "0"),
			   gb_seq(b, gb_opt(b, gb_lit(b, "-")), gb_list(b, GN_ALT, first, 9)));
	free(now);
	free(less);
	return r;
}

static long long floor_div(long long x, long long m)
{
	return x / m - (x % m < 0);
}

gnode gb_multiples(struct gb *b, long long m, const struct bounds *r, const char **why)
{
	double lo, hi;
	long long from, to;

	if (m == 1)
		return gb_number_range(b, r, 0, why);
	if (r->min && r->max) {
		lo = ceil(json_number_value(r->min));
		hi = floor(json_number_value(r->max));
		if (r->min_excl && lo == json_number_value(r->min))
			lo++;
		if (r->max_excl && hi == json_number_value(r->max))
			hi--;
		if (lo > hi)
			return 0;
		if (fabs(lo) < 1e15 && fabs(hi) < 1e15 && (hi - lo) / (double)m <= ENUMERATE_MAX) {
			from = -floor_div(-(long long)lo, m) * m;
			to = floor_div((long long)hi, m) * m;
			return from > to ? 0 : listed(b, m, from, to);
		}
	}
	if (r->min || r->max) {
		*why = "multipleOf with bounds is supported up to 4096 values";
		return 0;
	}
	if (m > MULTIPLE_MAX) {
		*why = "multipleOf over 200 needs a minimum and a maximum";
		return 0;
	}
	return by_remainder(b, m);
}
