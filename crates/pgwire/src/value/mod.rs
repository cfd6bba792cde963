//! Values on the wire: types, and both formats in both directions.

mod calendar;
mod encode;
mod numeric;
mod parameter;
mod types;

pub(crate) use encode::{Column, columns};
pub(crate) use parameter::{Parameter, literal};
pub(crate) use types::{PgType, TYPES, of_arrow, of_declared};

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Binary,
}

impl Format {
    /// By the protocol's number; anything but 0 and 1 is unknown.
    pub(crate) const fn from_code(code: i16) -> Option<Self> {
        match code {
            0 => Some(Self::Text),
            1 => Some(Self::Binary),
            _ => None,
        }
    }

    pub(crate) const fn code(self) -> i16 {
        match self {
            Self::Text => 0,
            Self::Binary => 1,
        }
    }
}
