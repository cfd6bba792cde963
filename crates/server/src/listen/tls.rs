//! Certificates: one's own, or one generated into the data folder.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig as RustlsConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tidemill_base::{Env, Error, Result};

use crate::config::ServerConfig;

/// Years that a generated certificate holds. It is trusted by its fingerprint, so ending early would only stop the fleet.
const YEARS: i32 = 10;

/// A certificate with its key, ready to serve. The key does not print.
#[derive(Clone)]
pub struct Identity {
    /// For the TLS acceptor.
    pub config: Arc<RustlsConfig>,
    /// SHA-256 of the certificate, as `AB:CD:...`, for people to compare.
    pub fingerprint: String,
    /// The certificate chain in PEM: what a worker is given to trust when it was generated.
    pub certificates: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// The identity that the settings ask for; `None`: no TLS.
pub fn identity(config: &ServerConfig, env: &Env) -> Result<Option<Identity>> {
    let tls = &config.tls;
    if !tls.cert.as_os_str().is_empty() {
        return from_files(&tls.cert, &tls.key).map(Some);
    }
    if !tls.generate {
        return Ok(None);
    }
    generated(&config.server.data.join("tls"), &names(config.listen()?, &tls.names), env).map(Some)
}

/// Names that a generated certificate is good for.
fn names(listen: SocketAddr, more: &[String]) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !listen.ip().is_unspecified() {
        names.push(listen.ip().to_string());
    }
    if let Ok(host) = fs::read_to_string("/proc/sys/kernel/hostname") {
        names.push(host.trim().to_owned());
    }
    names.extend(more.iter().cloned());
    names.retain(|n| !n.is_empty());
    names.sort();
    names.dedup();
    names
}

/// The certificate in `<folder>/cert.pem` with the key in `<folder>/key.pem`, made for `names` if they are not there.
pub fn generated(folder: &Path, names: &[String], env: &Env) -> Result<Identity> {
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    if !(cert.exists() && key.exists()) {
        make(&cert, &key, names, env).map_err(|e| e.context(format!("generate a certificate in {}", folder.display())))?;
    }
    from_files(&cert, &key)
}

fn make(cert: &Path, key: &Path, names: &[String], env: &Env) -> Result<()> {
    let wrong = |e: rcgen::Error| Error::invalid("the names do not fit a certificate").with_source(e);
    let mut params = rcgen::CertificateParams::new(names.to_vec()).map_err(wrong)?;
    let year = year_of(env);
    params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + YEARS, 1, 1);
    params.distinguished_name.push(rcgen::DnType::CommonName, "tidemill");
    let pair = rcgen::KeyPair::generate().map_err(wrong)?;
    let made = params.self_signed(&pair).map_err(wrong)?;
    if let Some(folder) = key.parent() {
        fs::create_dir_all(folder)?;
    }
    // The key goes first: without its certificate it is made anew at the next start, the other way round nobody could use either.
    write_private(key, &pair.serialize_pem())?;
    fs::write(cert, made.pem())?;
    Ok(())
}

fn year_of(env: &Env) -> i32 {
    env.now().rfc3339().get(..4).and_then(|y| y.parse().ok()).unwrap_or(2026)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The certificate chain and the private key in these PEM files.
pub fn from_files(cert: &Path, key: &Path) -> Result<Identity> {
    let certificates = fs::read_to_string(cert).map_err(|e| Error::from(e).context(format!("read certificate {}", cert.display())))?;
    let key_pem = fs::read(key).map_err(|e| Error::from(e).context(format!("read key {}", key.display())))?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| Error::invalid(format!("{} is not a certificate in PEM", cert.display())).with_source(e))?;
    let Some(first) = chain.first() else {
        return Err(Error::invalid(format!("{} holds no certificate; it must be PEM, the server's own first", cert.display())));
    };
    let fingerprint = Sha256::digest(first).iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":");
    let key_der = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|e| Error::invalid(format!("{} holds no private key in PEM", key.display())).with_source(e))?;
    let mut config = RustlsConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("TLS versions").with_source(e))?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|e| Error::invalid(format!("{} and {} do not belong together", cert.display(), key.display())).with_source(e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Identity { config: Arc::new(config), fingerprint, certificates })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_base::ErrorKind;

    #[test]
    fn a_certificate_is_generated_once_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::system();
        let first = generated(&folder.path().join("tls"), &names("10.1.2.3:80".parse().unwrap(), &["mill".to_owned()]), &env).unwrap();
        let again = generated(&folder.path().join("tls"), &[], &env).unwrap();
        assert_eq!(first.fingerprint, again.fingerprint);
        assert_eq!(first.fingerprint.len(), 95);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(folder.path().join("tls/key.pem")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert!(!format!("{first:?}").contains("PRIVATE"));
    }

    #[test]
    fn wrong_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        generated(&a, &["x".to_owned()], &Env::system()).unwrap();
        generated(&b, &["x".to_owned()], &Env::system()).unwrap();
        let e = from_files(&a.join("cert.pem"), &b.join("key.pem")).unwrap_err();
        assert!(e.message().contains("do not belong together"), "{e}");
        let e = from_files(&a.join("key.pem"), &a.join("key.pem")).unwrap_err();
        assert!(e.message().contains("holds no certificate"), "{e}");
        assert_eq!(from_files(&a.join("none"), &a.join("key.pem")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
