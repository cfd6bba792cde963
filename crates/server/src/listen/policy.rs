//! Tokens do not travel in clear text: beyond loopback there is TLS, or somebody has said that a proxy speaks it.

use std::net::SocketAddr;

use tidemill_base::{Error, Result};

/// `Invalid`, naming the flags, when `address` can be reached from elsewhere and there is neither TLS nor `insecure`.
pub fn check_exposure(address: SocketAddr, tls: bool, insecure: bool) -> Result<()> {
    let ip = address.ip().to_canonical();
    if tls || ip.is_loopback() {
        return Ok(());
    }
    if insecure {
        tracing::warn!(%address, "listening beyond loopback without TLS: tokens travel in clear text up to the proxy in front");
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{address} can be reached from other machines and there is no TLS; give a certificate with `--tls-cert FILE --tls-key FILE`, have \
         one made with `--tls-generate`, listen on 127.0.0.1, or say `--insecure` if a proxy in front speaks TLS"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_base::ErrorKind;

    #[test]
    fn clear_text_stays_on_loopback() {
        for local in ["127.0.0.1:8080", "127.8.8.8:1", "[::1]:8080", "[::ffff:127.0.0.1]:80"] {
            check_exposure(local.parse().unwrap(), false, false).unwrap();
        }
        for open in ["0.0.0.0:8080", "[::]:8080", "192.168.1.5:80", "[::ffff:10.0.0.1]:80"] {
            let e = check_exposure(open.parse().unwrap(), false, false).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Invalid);
            for flag in ["--tls-cert", "--tls-key", "--tls-generate", "--insecure"] {
                assert!(e.message().contains(flag), "{e}");
            }
            check_exposure(open.parse().unwrap(), true, false).unwrap();
            check_exposure(open.parse().unwrap(), false, true).unwrap();
        }
    }
}
