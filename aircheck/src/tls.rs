//! TLS towards servers: whose certificates are believed.
//!
//! Owns the roots; must never offer a way to believe nobody's or everybody's.

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use thiserror::Error;
use tokio_rustls::TlsConnector;

/// A file of certificates that can't be used.
#[derive(Debug, Error)]
pub(crate) enum CaError {
    /// Not there, or no PEM.
    #[error("{file} can't be read as PEM certificates")]
    Pem {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Not one in it.
    #[error("{0} holds no certificate")]
    Empty(PathBuf),
}

/// Whom we believe; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Trust(Arc<RootCertStore>);

impl Trust {
    /// The authorities of this machine; where it has none, nobody is believed.
    pub(crate) fn of_machine() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            tracing::debug!(%error, "certificates of this machine");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        Self(Arc::new(roots))
    }

    /// Those, and the ones in a PEM file where one is named.
    ///
    /// # Errors
    /// If the file can't be read or holds none.
    pub(crate) fn with_file(file: Option<&Path>) -> Result<Self, CaError> {
        let Self(machine) = Self::of_machine();
        let Some(file) = file else {
            return Ok(Self(machine));
        };
        let bad = |source| CaError::Pem {
            file: file.to_owned(),
            source,
        };
        let mut roots = Arc::unwrap_or_clone(machine);
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(file).map_err(bad)? {
            roots.add_parsable_certificates([certificate.map_err(bad)?]);
        }
        if roots.len() == before {
            return Err(CaError::Empty(file.to_owned()));
        }
        Ok(Self(Arc::new(roots)))
    }

    /// What a client needs to know.
    pub(crate) fn config(&self) -> ClientConfig {
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("ring speaks the default versions of TLS")
            .with_root_certificates(Arc::clone(&self.0))
            .with_no_client_auth()
    }

    /// Opens TLS on a stream, for one application protocol.
    pub(crate) fn connector(&self, protocol: &str) -> TlsConnector {
        let mut config = self.config();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("ca.pem");
        assert!(matches!(
            Trust::with_file(Some(&file)),
            Err(CaError::Pem { .. })
        ));
        std::fs::write(&file, "no certificate").expect("write");
        assert!(matches!(
            Trust::with_file(Some(&file)),
            Err(CaError::Empty(_))
        ));
    }
}
