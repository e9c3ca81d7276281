//! Files of certificates and keys: those that can be used, and what is said of others.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clawdbot_server::{Tls, TlsError, TlsEvent, TlsOptions};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};

use crate::support::app;

/// A certificate and its key, in PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Who signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn certificate(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn sign(&self, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn server(&self) -> Pair {
        self.sign(|params| params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth))
    }

    pub(crate) fn client(&self) -> Pair {
        self.sign(|params| params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ClientAuth))
    }
}

/// A directory of a test.
pub(crate) fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// Writes both files, and returns options with them.
pub(crate) fn written(directory: &Path, pair: &Pair) -> TlsOptions {
    let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    fs::write(&certificate, &pair.certificate).unwrap();
    fs::write(&key, &pair.key).unwrap();
    TlsOptions::new(certificate, key)
}

fn made(options: TlsOptions) -> Result<Tls, TlsError> {
    Tls::new(&app(), options, |_| {})
}

/// The message of the error for these files.
fn refusal(name: &str, certificate: &str, key: &str) -> String {
    let pair = Pair { certificate: certificate.to_owned(), key: key.to_owned() };
    made(written(&directory(name), &pair)).unwrap_err().to_string()
}

#[test]
fn messages_name_the_file_and_what_is_wrong() {
    let authority = Authority::new();
    let good = authority.server();
    let other = authority.server();
    let swapped = refusal("tls-swapped", &good.key, &good.certificate);
    assert!(swapped.ends_with("cert.pem: expected certificates in PEM, found PRIVATE KEY"), "{swapped}");
    let no_key = refusal("tls-no-key", &good.certificate, &good.certificate);
    assert!(
        no_key.contains("key.pem: expected a private key") && no_key.ends_with("found CERTIFICATE"),
        "{no_key}"
    );
    let mismatch = refusal("tls-mismatch", &good.certificate, &other.key);
    assert!(mismatch.contains("key.pem: expected the private key of"), "{mismatch}");
    let sealed = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let sealed = refusal("tls-sealed", &good.certificate, sealed);
    assert!(sealed.ends_with("found a private key with a passphrase"), "{sealed}");
    let cut = good.certificate.replace("-----END CERTIFICATE-----", "");
    let cut = refusal("tls-cut", &cut, &good.key);
    assert!(cut.contains("cert.pem") && cut.contains("END CERTIFICATE"), "{cut}");
    let garbage =
        refusal("tls-garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &good.key);
    assert!(garbage.contains("cert.pem: expected a certificate for a server"), "{garbage}");
    let broken = refusal(
        "tls-broken",
        &good.certificate,
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    );
    assert!(broken.contains("key.pem: expected an RSA, ECDSA"), "{broken}");
    let large = refusal("tls-large", &good.certificate.repeat(3000), &good.key);
    assert!(large.contains("more than 1048576 bytes"), "{large}");
    let missing = made(TlsOptions::new(Path::new("no/such.pem"), Path::new("key.pem"))).unwrap_err();
    assert!(missing.to_string().starts_with("no/such.pem: "), "{missing}");
}

#[test]
fn certificates_that_clients_would_refuse_are_refused() {
    let authority = Authority::new();
    let old = authority.sign(|params| params.not_after = date_time_ymd(2020, 2, 3));
    let old = refusal("tls-old", &old.certificate, &old.key);
    assert!(old.ends_with("found one that ended at 2020-02-03T00:00:00Z"), "{old}");
    let new = authority.sign(|params| params.not_before = date_time_ymd(3000, 1, 1));
    let new = refusal("tls-new", &new.certificate, &new.key);
    assert!(new.ends_with("found one that begins at 3000-01-01T00:00:00Z"), "{new}");
    let client = authority.client();
    let client = refusal("tls-client", &client.certificate, &client.key);
    assert!(client.contains("expected a certificate for a server"), "{client}");
}

#[test]
fn certificates_that_clients_take_are_taken() {
    let authority = Authority::new();
    // As `openssl req -x509` makes them.
    let own = authority.sign(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    made(written(&directory("tls-own"), &own)).unwrap();
    // A chain, and a key in another form, with what others write between.
    let mut pair = authority.server();
    pair.certificate.push_str(&authority.certificate());
    let der: String = pair.key.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64_STANDARD.decode(der).unwrap();
    let inner = der.windows(4).position(|part| part == [0x04, 0x6d, 0x30, 0x6b]).unwrap() + 2;
    let sec1 = BASE64_STANDARD.encode(&der[inner..]);
    pair.key = format!(
        "Comment\n-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n-----BEGIN EC PRIVATE KEY-----\n{sec1}\n-----END EC PRIVATE KEY-----\n"
    );
    made(written(&directory("tls-chain"), &pair)).unwrap();
    // Both in one file.
    let mut one = authority.server();
    one.certificate.push_str(&one.key);
    one.key.clone_from(&one.certificate);
    made(written(&directory("tls-one"), &one)).unwrap();
}

#[cfg(unix)]
#[test]
fn keys_that_others_can_read_are_told() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::{Arc, Mutex};

    let directory = directory("tls-open");
    let options = written(&directory, &Authority::new().server());
    for (mode, told) in [(0o600, 0), (0o640, 0), (0o644, 1)] {
        fs::set_permissions(directory.join("key.pem"), fs::Permissions::from_mode(mode)).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hook = Arc::clone(&heard);
        let tell = move |event: &TlsEvent| hook.lock().unwrap().push(event.to_string());
        Tls::new(&app(), options.clone(), tell).unwrap();
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len(), told, "{heard:?}");
        assert!(
            heard.iter().all(|text| text.contains("key.pem") && text.ends_with("mode 0644")),
            "{heard:?}"
        );
    }
}
