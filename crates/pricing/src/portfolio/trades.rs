//! Trades as rows of CSV.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_base::{Error, Result};

use super::Market;
use super::product::{Product, Tables};
use crate::dates::Tenor;

/// The columns, all of which must be there; others are passed over.
const COLUMNS: [&str; 10] = ["trade_id", "desk", "book", "type", "underlying", "cp", "k_pct", "tenor", "qty", "barrier_pct"];

/// Trades ready to be valued in the scenarios of a market.
#[derive(Debug)]
pub struct Portfolio {
    pub(super) market: Arc<Market>,
    pub(super) trades: Vec<Trade>,
}

/// One trade.
#[derive(Debug)]
pub struct Trade {
    /// Its name.
    pub id: String,
    /// The desk it belongs to.
    pub desk: String,
    /// The book of that desk.
    pub book: String,
    /// How many units; negative when sold.
    pub quantity: f64,
    /// What it is, or why that is not known.
    pub(super) product: Result<Product, String>,
}

impl Portfolio {
    /// Reads trades and prepares them: schedules, strikes (given as parts of today's spot) and tables.
    ///
    /// Columns: `trade_id`, `desk`, `book`, `type` (european, american, heston, `barrier_down_out` and its kin, fxfwd, swap),
    /// `underlying` (a currency for a swap), `cp` (C or P; for a swap P pays and R receives fixed), `k_pct` (strike over today's spot;
    /// a swap's fixed rate), `tenor`, `qty`, `barrier_pct`.
    ///
    /// A row with a field that makes no sense is kept, and valuing it is a [`Failure`](super::Failure): the others go on.
    ///
    /// # Errors
    /// `Invalid` when the text is not CSV or a column is missing.
    pub fn read(csv: &str, market: Arc<Market>) -> Result<Self> {
        let wrong = |e: csv::Error| Error::invalid(format!("the trades cannot be read: {e}"));
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(csv.as_bytes());
        let header = reader.headers().map_err(wrong)?.clone();
        let place: BTreeMap<&str, usize> = header.iter().enumerate().map(|(i, name)| (name, i)).collect();
        if let Some(missing) = COLUMNS.iter().find(|c| !place.contains_key(*c)) {
            return Err(Error::invalid(format!("the trades have no column `{missing}`; needed are {}", COLUMNS.join(", "))));
        }
        let mut tables = Tables::default();
        let mut seen = BTreeSet::new();
        let mut trades = Vec::new();
        for record in reader.records() {
            let record = record.map_err(wrong)?;
            let row = Row::new(&|column| place.get(column).and_then(|i| record.get(*i)).unwrap_or_default());
            let known = !seen.insert(row.id.to_owned());
            trades.push(Trade::new(&row, known, &market, &mut tables));
        }
        Ok(Self { market, trades })
    }

    /// The trades in the order they were read.
    pub fn trades(&self) -> &[Trade] {
        &self.trades
    }

    /// The market they are valued in.
    pub fn market(&self) -> &Market {
        &self.market
    }
}

impl Trade {
    fn new(row: &Row<'_>, known: bool, market: &Market, tables: &mut Tables) -> Self {
        let quantity = row.number("qty", row.qty);
        let product = match &quantity {
            _ if row.id.is_empty() => Err("`trade_id` is empty".to_owned()),
            _ if known => Err(format!("`trade_id` is `{}`, as that of a row before", row.id)),
            Err(e) => Err(e.to_string()),
            Ok(_) => Product::new(row, market, tables).map_err(|e| e.to_string()),
        };
        let own = str::to_owned;
        Self { id: own(row.id), desk: own(row.desk), book: own(row.book), quantity: quantity.unwrap_or(f64::NAN), product }
    }
}

/// The fields of a row.
pub(super) struct Row<'a> {
    id: &'a str,
    desk: &'a str,
    book: &'a str,
    pub(super) kind: &'a str,
    pub(super) underlying: &'a str,
    pub(super) cp: &'a str,
    pub(super) k_pct: &'a str,
    tenor: &'a str,
    qty: &'a str,
    pub(super) barrier_pct: &'a str,
}

impl<'a> Row<'a> {
    fn new(field: &dyn Fn(&str) -> &'a str) -> Self {
        let [id, desk, book, kind, underlying, cp, k_pct, tenor, qty, barrier_pct] = COLUMNS.map(field);
        Self { id, desk, book, kind, underlying, cp, k_pct, tenor, qty, barrier_pct }
    }

    pub(super) fn number(&self, column: &str, text: &str) -> Result<f64> {
        let refuse = || Error::invalid(format!("`{column}` is `{text}`; it must be a finite number"));
        text.parse().ok().filter(|x: &f64| x.is_finite()).ok_or_else(refuse)
    }

    pub(super) fn tenor(&self) -> Result<Tenor> {
        Tenor::parse(self.tenor).map_err(|e| e.context("`tenor`"))
    }

    /// Whether a field has the first of the two values it may have.
    pub(super) fn is(&self, column: &str, text: &str, first: &str, second: &str) -> Result<bool> {
        match text {
            _ if text == first => Ok(true),
            _ if text == second => Ok(false),
            _ => Err(Error::invalid(format!("`{column}` is `{text}`; for a {} it must be {first} or {second}", self.kind))),
        }
    }
}
