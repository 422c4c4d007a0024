//! Certificates made for one test.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use plimsoll_tests::TestCluster;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// An authority of the test's own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub certificate: String,
}

/// A server's certificate and key, PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// The years from whose beginning to whose beginning a certificate is valid.
pub type Years = (i32, i32);

/// A time in which every test is run.
pub const NOW: Years = (2020, 2100);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for these names or addresses.
    pub fn sign(&self, names: &[&str], years: Years) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(names, years).signed_by(&key, &self.issuer).expect("a certificate").pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

/// A certificate that no authority signed.
pub fn self_signed(names: &[&str]) -> Identity {
    let key = KeyPair::generate().expect("a key");
    let certificate = params(names, NOW).self_signed(&key).expect("a certificate").pem();
    Identity { certificate, key: key.serialize_pem() }
}

fn params(names: &[&str], (from, to): Years) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    params
}

/// Has the server take TLS connections alone, with this identity.
pub fn serve(cluster: &TestCluster, identity: &Identity) {
    let directory = cluster.directory();
    let file = |name: &str, content: &str| -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, content).expect("a file");
        belongs_to(&path, directory);
        path
    };
    let certificate = file("server.crt", &identity.certificate);
    let key = file("server.key", &identity.key);
    file("data/pg_hba.conf", "local all all trust\nhostssl all all all scram-sha-256\n");
    reload(
        cluster,
        &format!(
            "ALTER SYSTEM SET ssl = on; ALTER SYSTEM SET ssl_cert_file = '{}'; ALTER SYSTEM SET ssl_key_file = '{}'",
            certificate.display(),
            key.display()
        ),
    );
}

/// Has the server read its settings again, and waits until it has.
pub fn reload(cluster: &TestCluster, settings: &str) {
    let loaded = || -> std::time::SystemTime {
        cluster.superuser("postgres").query_one("SELECT pg_conf_load_time()", &[]).expect("a time").get(0)
    };
    let before = loaded();
    let mut superuser = cluster.superuser("postgres");
    for setting in settings.split(';').chain(["SELECT pg_reload_conf()"]) {
        superuser.batch_execute(setting).expect(setting);
    }
    for _ in 0..600 {
        if loaded() > before {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the server does not read its settings:\n{}", cluster.last_words());
}

fn belongs_to(path: &Path, directory: &Path) {
    let owner = fs::metadata(directory).expect("the directory");
    chown(path, Some(owner.uid()), Some(owner.gid())).expect("an owner");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("permissions");
}
