//! TLS of checks: any certificate, or one of an authority.

use super::ask::{Question, Trouble};
use crate::daemon::disk;
use lockstep_ctl_core::checks::Tls;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long what was read from a file of authorities holds: it may be replaced.
const LIFETIME: Duration = Duration::from_secs(60);

/// Configurations by what a check says and the protocol in TLS.
#[derive(Debug, Default)]
pub struct Configs {
    known: Mutex<BTreeMap<Key, (Instant, Arc<ClientConfig>)>>,
}

type Key = (Tls, &'static str);

impl Configs {
    fn get(&self, tls: &Tls, protocol: &'static str) -> Result<Arc<ClientConfig>, Trouble> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| at.elapsed() < LIFETIME);
        let key = (tls.clone(), protocol);
        if let Some((_, config)) = known.get(&key) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(config(tls, protocol).map_err(Trouble::Here)?);
        known.insert(key, (Instant::now(), Arc::clone(&config)));
        Ok(config)
    }
}

/// TLS on a connection; `protocol` is what is spoken in it (ALPN).
pub async fn handshake(
    question: &Question<'_>,
    tls: &Tls,
    protocol: &'static str,
    configs: &Configs,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Trouble> {
    let config = configs.get(tls, protocol)?;
    let name = server_name(tls, question.to.ip())?;
    let shaking = async {
        let shaken = TlsConnector::from(config).connect(name, stream).await;
        shaken.map_err(|e| Trouble::of_socket("TLS", &e))
    };
    question.within("no TLS handshake", shaking).await
}

fn server_name(tls: &Tls, address: IpAddr) -> Result<ServerName<'static>, Trouble> {
    let Some(name) = &tls.server_name else {
        return Ok(ServerName::IpAddress(address.into()));
    };
    // `host` may have a port.
    let host = match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.contains(':') => {
            host
        }
        _ => name.as_str(),
    };
    let host = host.trim_matches(['[', ']']).to_owned();
    ServerName::try_from(host)
        .map_err(|_| Trouble::Here(format!("{name:?} is no name for TLS; set `server_name`")))
}

fn config(tls: &Tls, protocol: &'static str) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS: {e}"))?;
    let mut config = match &tls.ca {
        Some(file) => builder.with_root_certificates(roots(file)?),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
    }
    .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    // Every check is a whole handshake.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots(file: &Path) -> Result<RootCertStore, String> {
    let failed = |error: &dyn std::fmt::Display| {
        let file = file.display();
        format!("cannot read certificates from {file}: {error}")
    };
    let mut roots = RootCertStore::empty();
    let bytes = disk::read_named(file).map_err(|e| failed(&e))?;
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|e| failed(&e))?;
        roots.add(certificate).map_err(|e| failed(&e))?;
    }
    match roots.is_empty() {
        true => Err(failed(&"it has none")),
        false => Ok(roots),
    }
}

/// Takes any certificate, whose key the server has to have all the same: whether a server works is
/// asked, not who it is.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
