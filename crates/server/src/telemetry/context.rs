//! Where in a trace something happens: the W3C `traceparent` header.

use std::fmt;

use tidemill_base::Env;

/// The header, and with this name in capitals the variable that tasks find.
pub const TRACEPARENT: &str = "traceparent";

/// A span of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: [u8; 16],
    /// The span within it.
    pub span: [u8; 8],
    /// Whether whoever began the trace wants it recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// The beginning of a trace.
    pub fn root(env: &Env) -> Self {
        let mut trace = [0; 16];
        trace.copy_from_slice(&env.secret(16).0);
        Self { trace, span: span_id(env), sampled: true }
    }

    /// A span below this one.
    #[must_use]
    pub fn child(&self, env: &Env) -> Self {
        Self { span: span_id(env), ..*self }
    }

    /// Reads a header. `None` for one that is not of the form, which is as if there was none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // A later version may have more parts; what the first four mean stays.
        if version.len() != 2 || version == "ff" || flags.len() != 2 || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let mut out = Self { trace: [0; 16], span: [0; 8], sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1 };
        hex::decode_to_slice(trace, &mut out.trace).ok()?;
        hex::decode_to_slice(span, &mut out.span).ok()?;
        u8::from_str_radix(version, 16).ok()?;
        (out.trace != [0; 16] && out.span != [0; 8]).then_some(out)
    }
}

fn span_id(env: &Env) -> [u8; 8] {
    let mut span = [0; 8];
    span.copy_from_slice(&env.secret(8).0);
    span
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", hex::encode(self.trace), hex::encode(self.span), u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_and_written_and_rubbish_is_as_if_there_was_none() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(text).unwrap();
        assert_eq!((context.to_string().as_str(), context.sampled), (text, true));
        assert!(!TraceContext::parse(&text.replace("-01", "-00")).unwrap().sampled);
        assert!(TraceContext::parse(&format!("cc{}-more", &text[2..])).is_some());
        for wrong in [
            "",
            "00-0-0-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            &text[..50],
            &format!("{text}-more"),
            &text.replace("00-4", "ff-4"),
        ] {
            assert!(TraceContext::parse(wrong).is_none(), "{wrong}");
        }
    }
}
