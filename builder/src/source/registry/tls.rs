//! Whom to trust: the system's certificates, those of `certs.d` for one registry, and a client certificate if it has one.
//!
//! `certs.d/HOST[:PORT]/` holds, as for Docker and Podman, `*.crt` (certificate authorities) and pairs of `*.cert` and
//! `*.key` (who we are). A machine without any certificates of its own gets Mozilla's, as they were when Coracle was built.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};

use super::RegistryError;
use crate::source::Options;

/// The TLS settings for one registry.
pub(super) fn config(host: &str, insecure: bool, options: &Options) -> Result<ClientConfig, RegistryError> {
    let setup = |why: String| RegistryError::Setup { registry: host.to_owned(), why };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(error.to_string()))?;
    let own = Own::read(host, options)?;
    let builder = if insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
    } else {
        let mut roots = system(options)?;
        roots.add_parsable_certificates(own.authorities);
        builder.with_root_certificates(roots)
    };
    let mut config = match own.identity {
        Some((certificates, key)) => builder
            .with_client_auth_cert(certificates, key)
            .map_err(|error| setup(format!("its client certificate in certs.d does not fit its key: {error}")))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn system(options: &Options) -> Result<RootCertStore, RegistryError> {
    let (file, directory) = (options.certificate_file.as_deref(), options.certificate_directory.as_deref());
    let named = file.is_some() || directory.is_some();
    let found = if named {
        rustls_native_certs::load_certs_from_paths(file, directory)
    } else {
        rustls_native_certs::load_native_certs()
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        if named {
            let why =
                found.errors.first().map_or_else(|| "there is no certificate in it".to_owned(), ToString::to_string);
            let place = file.or(directory).unwrap_or(Path::new("")).display().to_string();
            return Err(RegistryError::Setup {
                registry: "any registry".into(),
                why: format!("SSL_CERT_FILE or SSL_CERT_DIR names {place}: {why}"),
            });
        }
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}

/// What `certs.d` holds for a registry.
#[derive(Default)]
struct Own {
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Own {
    fn read(host: &str, options: &Options) -> Result<Self, RegistryError> {
        let mut own = Self::default();
        // The first directory that has this registry, as Docker and Podman do. `host` has passed the reference's grammar.
        let Some(directory) = options.certificate_directories.iter().map(|all| all.join(host)).find(|one| one.is_dir())
        else {
            return Ok(own);
        };
        let setup = |path: &Path, why: String| RegistryError::Setup {
            registry: host.to_owned(),
            why: format!("{}: {why}", path.display()),
        };
        let mut paths: Vec<PathBuf> = fs::read_dir(&directory)
            .map_err(|error| setup(&directory, error.to_string()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        paths.sort();
        for path in paths {
            let certificates = || {
                CertificateDer::pem_file_iter(&path)
                    .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                    .map_err(|error| setup(&path, format!("no certificate in PEM form: {error}")))
            };
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => own.authorities.extend(certificates()?),
                Some("cert") => {
                    let key_path = path.with_extension("key");
                    let key = PrivateKeyDer::from_pem_file(&key_path)
                        .map_err(|error| setup(&key_path, format!("no private key in PEM form: {error}")))?;
                    own.identity = Some((certificates()?, key));
                }
                _ => {}
            }
        }
        Ok(own)
    }
}

/// Believes any certificate: for registries that the user named insecure.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
