//! A certificate authority of the tests' own.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

use crate::node::Node;
use crate::world::World;

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        // OpenSSL takes a certificate whose subject is its issuer for self-signed, and is strict in newer Pythons.
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// What clients trust.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for this machine, in the world's `chain.pem` and `key.pem`, over what is there; their paths.
    pub(crate) fn issue(&self, world: &World) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let chain = world.write("chain.pem", certificate.pem().as_bytes());
        (chain, world.write("key.pem", key.serialize_pem().as_bytes()))
    }

    /// A registry with such a certificate and a user, `alice`, whose password is `wonderland`.
    pub(crate) fn node_with_users(&self, world: &World) -> Node {
        let (chain, secret) = self.issue(world);
        // `htpasswd -Bbn alice wonderland`
        let users =
            world.write("users", format!("alice:{}\n", bcrypt::hash("wonderland", 4).unwrap()).as_bytes());
        let more = ["--tls-cert", &chain, "--tls-key", &secret, "--htpasswd", &users];
        Node::of(world, &world.store(), &more)
    }
}
