//! Interest rate swaps: a fixed rate against a floating one, both on a notional of one.
//!
//! Floating coupons are par coupons: the forward rate over a coupon's own accrual period, from the curve that discounts as well.

use jiff::civil::Date;
use tidemill_base::{Error, Result};

use crate::curve::{Curve, Point};
use crate::dates::{Calendar, DayCount, Roll, Tenor, schedule};
use crate::terms::finite;

/// What swaps of one currency have in common.
#[derive(Debug, Clone)]
pub struct Conventions {
    /// Business days of both legs; dates go to the next one of the same month.
    pub calendar: Calendar,
    /// Time between fixed payments.
    pub fixed_every: Tenor,
    /// Day count of the fixed rate.
    pub fixed_day_count: DayCount,
    /// Time between floating payments.
    pub floating_every: Tenor,
    /// Day count of the floating rate.
    pub floating_day_count: DayCount,
}

/// A swap that starts on the day of valuation, placed on a curve.
#[derive(Debug, Clone)]
pub struct Swap {
    fixed: Vec<Payment>,
    floating: Vec<Payment>,
    /// 1 when the fixed rate is paid, -1 when it is received.
    sign: f64,
}

/// A coupon: known when its amount does not hang on the curve.
#[derive(Debug, Clone, Copy)]
struct Payment {
    start: Point,
    end: Point,
    /// Amount for the fixed leg and a coupon whose rate is already fixed.
    known: Option<f64>,
}

/// The trade itself.
#[derive(Debug, Clone, Copy)]
pub struct Contract {
    /// Whether the fixed rate is paid (and the floating one received).
    pub pays_fixed: bool,
    /// The fixed rate per year.
    pub rate: f64,
    /// How long the swap runs.
    pub length: Tenor,
    /// The floating rate of the first coupon, which was fixed on the day of valuation.
    pub first_fixing: f64,
}

impl Swap {
    /// Builds the schedules from `asof` on, on which the swap starts, and places them on `curve`, whose times are in `Act/365F` years
    /// from `asof`.
    ///
    /// # Errors
    /// `Invalid` when a rate is not a number, or dates are beyond the calendar or the curve.
    pub fn new(contract: &Contract, conventions: &Conventions, asof: Date, curve: &Curve) -> Result<Self> {
        finite("rate", contract.rate)?;
        finite("first_fixing", contract.first_fixing)?;
        let end = contract.length.after(asof, 1)?;
        let leg = |step: Tenor, amount: &dyn Fn(usize, Date, Date) -> Option<f64>| -> Result<Vec<Payment>> {
            let dates = schedule(asof, end, step, &conventions.calendar, Roll::ModifiedFollowing)?;
            let point = |date: Date| curve.point(DayCount::Actual365Fixed.fraction(asof, date));
            dates
                .windows(2)
                .enumerate()
                .map(|(i, d)| Ok(Payment { start: point(d[0])?, end: point(d[1])?, known: amount(i, d[0], d[1]) }))
                .collect()
        };
        let Conventions { fixed_every, fixed_day_count, floating_every, floating_day_count, .. } = *conventions;
        let fixed = leg(fixed_every, &|_, start, end| Some(contract.rate * fixed_day_count.fraction(start, end)))?;
        let floating =
            leg(floating_every, &|i, start, end| (i == 0).then(|| contract.first_fixing * floating_day_count.fraction(start, end)))?;
        if fixed.is_empty() || floating.is_empty() {
            return Err(Error::invalid(format!("a swap of {} from {asof} has no period between business days", contract.length)));
        }
        Ok(Self { fixed, floating, sign: if contract.pays_fixed { 1.0 } else { -1.0 } })
    }

    /// Values for a notional of one in the scenarios of `curve` from `first` on.
    ///
    /// # Panics
    /// When the curve has fewer scenarios.
    pub fn values(&self, curve: &Curve, first: usize, out: &mut [f64]) {
        out.fill(0.0);
        let mut from = vec![0.0; out.len()];
        let mut to = vec![0.0; out.len()];
        for payment in &self.floating {
            curve.discounts(payment.end, first, &mut to);
            match payment.known {
                Some(amount) => add(out, self.sign * amount, &to),
                None => {
                    // Rate times accrual is the ratio of discount factors less one, whatever the day count.
                    curve.discounts(payment.start, first, &mut from);
                    for ((out, from), to) in out.iter_mut().zip(&from).zip(&to) {
                        *out += self.sign * (from / to - 1.0) * to;
                    }
                }
            }
        }
        for payment in &self.fixed {
            curve.discounts(payment.end, first, &mut to);
            add(out, -self.sign * payment.known.unwrap_or_default(), &to);
        }
    }
}

fn add(out: &mut [f64], amount: f64, discounts: &[f64]) {
    for (out, discount) in out.iter_mut().zip(discounts) {
        *out += amount * discount;
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn conventions() -> Conventions {
        Conventions {
            calendar: Calendar::new("X", [date(2019, 1, 1), date(2040, 1, 1)]),
            fixed_every: Tenor::months(12),
            fixed_day_count: DayCount::Thirty360,
            floating_every: Tenor::months(3),
            floating_day_count: DayCount::Actual360,
        }
    }

    fn value(contract: &Contract, curve: &Curve) -> f64 {
        let swap = Swap::new(contract, &conventions(), date(2018, 12, 28), curve).unwrap();
        let mut out = [0.0];
        swap.values(curve, 0, &mut out);
        out[0]
    }

    fn contract(rate: f64, first_fixing: f64) -> Contract {
        Contract { pays_fixed: true, rate, length: Tenor::parse("5Y").unwrap(), first_fixing }
    }

    #[test]
    fn payer_and_receiver_cancel() {
        let curve = Curve::new("X", &[10.0], &[vec![0.75]]).unwrap();
        let payer = contract(0.03, 0.025);
        let receiver = Contract { pays_fixed: false, ..payer };
        assert_eq!(value(&payer, &curve), -value(&receiver, &curve));
    }

    #[test]
    fn the_floating_leg_is_worth_par_when_its_first_rate_is_the_forward() {
        // Continuous rate 2 % in Act/365F years; the first period runs from 28 December 2018 for 90 days.
        let curve = Curve::new("X", &[10.0], &[vec![(-0.2_f64).exp()]]).unwrap();
        let fixing = ((0.02_f64 * 90.0 / 365.0).exp() - 1.0) * 360.0 / 90.0;
        let nothing_fixed = value(&contract(0.0, fixing), &curve);
        let days = f64::from(365 * 5 + 1);
        assert!((nothing_fixed - (1.0 - (-0.02 * days / 365.0).exp())).abs() < 1e-14, "{nothing_fixed}");
    }

    #[test]
    fn the_value_is_linear_in_the_fixed_rate() {
        let curve = Curve::new("X", &[10.0], &[vec![0.8]]).unwrap();
        let at = |rate| value(&contract(rate, 0.02), &curve);
        assert!((at(0.01) + at(0.03) - 2.0 * at(0.02)).abs() < 1e-15);
        assert!(at(0.01) > at(0.02));
    }

    #[test]
    fn what_is_beyond_curve_or_sense_is_named() {
        let curve = Curve::new("X", &[3.0], &[vec![0.9]]).unwrap();
        let message = |c: &Contract| Swap::new(c, &conventions(), date(2018, 12, 28), &curve).unwrap_err().to_string();
        assert!(message(&contract(0.01, 0.01)).contains("curve `X` reaches from now to 3 years"));
        assert!(message(&contract(f64::NAN, 0.01)).contains("`rate` is NaN"));
    }
}
