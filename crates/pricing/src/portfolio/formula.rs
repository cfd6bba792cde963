//! How a number is made from market factors, as conventions write it: `VIX/100`, `1.15*VIX/100`, `(VIX/100)^2`, `1/USDEUR`.

use tidemill_base::{Error, Result};

use crate::math::powf;

/// A formula with the names of factors resolved to their places.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Formula {
    Number(f64),
    Factor(usize),
    Apply(Box<(Formula, char, Formula)>),
}

impl Formula {
    /// Reads a formula. `factor` gives the place of a name.
    pub(super) fn parse(text: &str, factor: &dyn Fn(&str) -> Option<usize>) -> Result<Self> {
        let mut parser = Parser { text, rest: text, factor };
        let formula = parser.sum(0)?;
        if parser.rest.trim_start().is_empty() { Ok(formula) } else { Err(parser.refuse("an operator or the end")) }
    }

    pub(super) fn value(&self, factors: &dyn Fn(usize) -> f64) -> f64 {
        match self {
            Self::Number(x) => *x,
            Self::Factor(place) => factors(*place),
            Self::Apply(parts) => {
                let (a, b) = (parts.0.value(factors), parts.2.value(factors));
                match parts.1 {
                    '+' => a + b,
                    '-' => a - b,
                    '*' => a * b,
                    '/' => a / b,
                    // Exactly, where it is a square: that is what variances are.
                    _ if b == 2.0 => a * a,
                    _ => powf(a, b),
                }
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    factor: &'a dyn Fn(&str) -> Option<usize>,
}

/// Parentheses within parentheses, at most: a formula of conventions has one or two.
const DEEPEST: usize = 32;

impl Parser<'_> {
    fn refuse(&self, wanted: &str) -> Error {
        let at = self.text.len() - self.rest.trim_start().len();
        Error::invalid(format!("formula `{}`: {wanted} is missing at character {}", self.text, at + 1))
    }

    fn take(&mut self, any_of: &str) -> Option<char> {
        let rest = self.rest.trim_start();
        let c = rest.chars().next().filter(|c| any_of.contains(*c))?;
        self.rest = &rest[c.len_utf8()..];
        Some(c)
    }

    fn word(&mut self, part: fn(char) -> bool) -> &str {
        let rest = self.rest.trim_start();
        let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
        self.rest = &rest[end..];
        &rest[..end]
    }

    fn sum(&mut self, depth: usize) -> Result<Formula> {
        let mut left = self.product(depth)?;
        while let Some(operator) = self.take("+-") {
            left = Formula::Apply(Box::new((left, operator, self.product(depth)?)));
        }
        Ok(left)
    }

    fn product(&mut self, depth: usize) -> Result<Formula> {
        let mut left = self.power(depth)?;
        while let Some(operator) = self.take("*/") {
            left = Formula::Apply(Box::new((left, operator, self.power(depth)?)));
        }
        Ok(left)
    }

    fn power(&mut self, depth: usize) -> Result<Formula> {
        let base = self.atom(depth)?;
        if self.take("^").is_none() {
            return Ok(base);
        }
        Ok(Formula::Apply(Box::new((base, '^', self.atom(depth)?))))
    }

    fn atom(&mut self, depth: usize) -> Result<Formula> {
        if depth > DEEPEST {
            return Err(self.refuse("a simpler formula"));
        }
        if self.take("(").is_some() {
            let inner = self.sum(depth + 1)?;
            return if self.take(")").is_some() { Ok(inner) } else { Err(self.refuse("`)`")) };
        }
        let before = self.rest;
        let word = self.word(|c| c.is_alphanumeric() || c == '_' || c == '.').to_owned();
        if let Some(x) = word.parse().ok().filter(|_| word.starts_with(|c: char| c.is_ascii_digit() || c == '.')) {
            return Ok(Formula::Number(x));
        }
        if let Some(place) = (self.factor)(&word) {
            return Ok(Formula::Factor(place));
        }
        self.rest = before;
        Err(self.refuse(if word.is_empty() { "a number or factor" } else { "a factor of that name" }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factor(name: &str) -> Option<usize> {
        ["VIX", "USD_DF_1Y"].iter().position(|f| *f == name)
    }

    fn value(text: &str) -> f64 {
        Formula::parse(text, &factor).unwrap().value(&|i| [30.0, 0.97][i])
    }

    #[test]
    fn formulas_of_conventions() {
        assert_eq!(value("0.38"), 0.38);
        assert_eq!(value("VIX/100"), 0.3);
        assert!((value("1.15*VIX/100") - 0.345).abs() < 1e-16);
        assert!((value(" (VIX / 100) ^ 2 ") - 0.09).abs() < 1e-16);
        assert_eq!(value("1/USD_DF_1Y"), 1.0 / 0.97);
        assert_eq!(value("2 + 3*4 - 6/3"), 12.0);
        assert!((value("VIX^0.5") - 30.0_f64.sqrt()).abs() < 1e-14);
    }

    #[test]
    fn mistakes_are_shown_at_their_place() {
        let message = |text: &str| Formula::parse(text, &factor).unwrap_err().to_string();
        assert_eq!(message("VIX/"), "formula `VIX/`: a number or factor is missing at character 5");
        assert_eq!(message("1.15*VXI"), "formula `1.15*VXI`: a factor of that name is missing at character 6");
        assert_eq!(message("(VIX"), "formula `(VIX`: `)` is missing at character 5");
        assert_eq!(message("VIX 2"), "formula `VIX 2`: an operator or the end is missing at character 5");
        assert!(message(&"(".repeat(10_000)).contains("a simpler formula"));
        assert!(message("").contains("character 1"));
    }
}
