//! Times as the server keeps them: microseconds since 2000.

use std::error::Error as StdError;

use bytes::{BufMut as _, BytesMut};
use tidemill_base::Timestamp;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

const Y2K: i64 = 946_684_800_000_000;
/// The first time that TIMESTAMPTZ cannot hold, in its own count. What is later is kept as `infinity`.
const END: i64 = 9_223_371_331_200_000_000;

/// A TIMESTAMPTZ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Timestamp);

impl<'a> FromSql<'a> for Time {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(Timestamp(i64::from_be_bytes(raw.try_into()?).saturating_add(Y2K))))
    }

    accepts!(TIMESTAMPTZ);
}

impl ToSql for Time {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        let micros = self.0.micros().saturating_sub(Y2K);
        out.put_i64(if micros >= END { i64::MAX } else { micros.max(-Y2K) });
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back() {
        for at in [0, 1, 1_700_000_000_123_456, Y2K, i64::MAX] {
            let mut out = BytesMut::new();
            Time(Timestamp(at)).to_sql(&Type::TIMESTAMPTZ, &mut out).unwrap();
            assert_eq!(Time::from_sql(&Type::TIMESTAMPTZ, &out).unwrap().0.micros(), at);
        }
    }
}
