//! TLS to the server by rustls with ring, for the client library's own interface.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tidemill_base::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

/// What is asked of the server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Nothing: this hides what is said from listeners, and from nobody who stands in between.
    Anybody,
    /// It comes from a known authority.
    Chain,
    /// And it is for the host that was dialled.
    ChainAndName,
}

/// Makes encrypted streams.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    #[cfg_attr(not(test), expect(dead_code, reason = "shown when settings are printed"))]
    trust: Trust,
}

impl Tls {
    /// `ca`: certificates of authorities in PEM; without them those of the web are believed.
    pub(crate) fn new(trust: Trust, ca: Option<&[u8]>) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::internal("set up TLS").with_source(e))?;
        let roots = roots(ca)?;
        let config = match trust {
            Trust::ChainAndName => builder.with_root_certificates(roots).with_no_client_auth(),
            Trust::Chain | Trust::Anybody => {
                let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .map_err(|e| Error::invalid("the certificates of authorities cannot be used").with_source(e))?;
                let verifier = Lenient { chain: (trust == Trust::Chain).then_some(inner), provider };
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
            }
        };
        Ok(Self { config: Arc::new(config), trust })
    }

    #[cfg(test)]
    pub(crate) const fn trust(&self) -> Trust {
        self.trust
    }
}

fn roots(ca: Option<&[u8]>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(pem) = ca else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(roots);
    };
    let bad = || Error::invalid("the postgres ca holds no certificates that can be read; it must be a PEM file");
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| bad().with_source(e))?;
        roots.add(certificate).map_err(|e| bad().with_source(e))?;
    }
    if roots.is_empty() { Err(bad()) } else { Ok(roots) }
}

/// Verifies less than rustls does by itself, as `sslmode` below `verify-full` asks for; signatures always.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // The name is looked at last, so all else is well.
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl<S> MakeTlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type TlsConnect = Connect;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<Connect> {
        let name = ServerName::try_from(domain.to_owned()).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        Ok(Connect { config: Arc::clone(&self.config), name })
    }
}

/// One handshake to come.
#[derive(Debug)]
pub(crate) struct Connect {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl<S> TlsConnect<S> for Connect
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let handshake = tokio_rustls::TlsConnector::from(self.config).connect(self.name, stream);
        Box::pin(async move { handshake.await.map(|stream| Encrypted(Box::new(stream))) })
    }
}

/// A stream after its handshake. It offers no channel binding, which would need the server's certificate taken apart.
#[derive(Debug)]
pub(crate) struct Encrypted<S>(Box<tokio_rustls::client::TlsStream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Authority {
        pem: String,
        server: Arc<rustls::ServerConfig>,
    }

    /// An authority and a server whose certificate is for `db.example`.
    fn authority() -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(params, key);
        let own = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["db.example".to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], own.serialize_der().try_into().unwrap())
            .unwrap();
        Authority { pem, server: Arc::new(server) }
    }

    /// Whether a client that trusts so speaks to the server under `name`.
    async fn speaks(trust: Trust, ca: Option<&str>, server: &Authority, name: &str) -> bool {
        let (near, far) = tokio::io::duplex(1 << 16);
        let mut tls = Tls::new(trust, ca.map(str::as_bytes)).unwrap();
        let connect = MakeTlsConnect::<tokio::io::DuplexStream>::make_tls_connect(&mut tls, name).unwrap();
        let client = async {
            let mut stream = connect.connect(near).await?;
            stream.write_all(b"ping").await?;
            stream.flush().await?;
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).await?;
            io::Result::Ok(answer)
        };
        let serve = async {
            let mut heard = [0; 4];
            let mut stream = tokio_rustls::TlsAcceptor::from(Arc::clone(&server.server)).accept(far).await?;
            stream.read_exact(&mut heard).await?;
            stream.write_all(&heard).await?;
            stream.flush().await
        };
        let (answered, _) = futures::join!(client, serve);
        answered.is_ok_and(|answer| answer == *b"ping")
    }

    #[tokio::test]
    async fn each_mode_believes_whom_it_should() {
        let (server, other) = (authority(), authority());
        for (trust, ca, name, want) in [
            (Trust::Anybody, None, "db.example", true),
            (Trust::Anybody, None, "other.example", true),
            (Trust::Chain, Some(&server), "other.example", true),
            (Trust::Chain, Some(&other), "db.example", false),
            (Trust::Chain, None, "db.example", false),
            (Trust::ChainAndName, Some(&server), "db.example", true),
            (Trust::ChainAndName, Some(&server), "other.example", false),
            (Trust::ChainAndName, Some(&other), "db.example", false),
            (Trust::ChainAndName, None, "db.example", false),
        ] {
            let spoke = speaks(trust, ca.map(|a| a.pem.as_str()), &server, name).await;
            assert_eq!(spoke, want, "{trust:?} with ca {} as {name}", ca.is_some());
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        for bad in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let e = Tls::new(Trust::Chain, Some(bad.as_bytes())).unwrap_err();
            assert_eq!(e.kind(), tidemill_base::ErrorKind::Invalid, "{bad:?}");
        }
    }
}
