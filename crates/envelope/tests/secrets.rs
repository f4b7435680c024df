//! Secrets can't be copied, compared, defaulted or printed, and shares join to what was split.
//! FORMAT-K3.

use bulla_envelope::secret::{
    AuditKey, Dek, EnvelopeKey, KeyWrappingKey, MetaKey, NameKey, RecordKey, Root, Secret, StoreKey,
    UploadKey,
};
use zeroize::ZeroizeOnDrop;

use crate::support::Seeded;

/// Does not compile if a type implements one of the traits: then `some` has two candidates. (`Serialize` is not among them:
/// the crate has no `serde` to implement.)
macro_rules! implements_none_of {
    ([$($ty:ty),* $(,)?] $traits:tt) => { $( implements_none_of!(@one $ty, $traits); )* };
    (@one $ty:ty, [$($tr:path),*]) => {
        const _: fn() = || {
            trait Ambiguous<A> { fn some() {} }
            impl<T: ?Sized> Ambiguous<()> for T {}
            $({
                #[allow(dead_code, reason = "only its implementation matters")]
                struct Implements;
                impl<T: ?Sized + $tr> Ambiguous<Implements> for T {}
            })*
            let _ = <$ty as Ambiguous<_>>::some;
        };
    };
}

implements_none_of! {
    [Secret<32>, Dek, StoreKey, Root, RecordKey, EnvelopeKey, MetaKey, UploadKey, AuditKey, KeyWrappingKey, NameKey]
    [Clone, Copy, PartialEq, Default, std::fmt::Display, std::hash::Hash, AsRef<[u8]>, std::ops::Deref]
}

#[test]
fn all_are_wiped_when_dropped() {
    fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<Secret<32>>();
    wiped::<Dek>();
    wiped::<StoreKey>();
    wiped::<Root>();
    wiped::<RecordKey>();
    wiped::<EnvelopeKey>();
    wiped::<MetaKey>();
    wiped::<UploadKey>();
    wiped::<AuditKey>();
    wiped::<KeyWrappingKey>();
    wiped::<NameKey>();
}

#[test]
fn debug_shows_the_name_only() {
    let random = Seeded::new(1);
    let root = Root::random(&random);
    let printed = [
        format!("{:?}", Secret::<32>::random(&random)),
        format!("{:?}", Dek::random(&random)),
        format!("{:?}", StoreKey::random(&random)),
        format!("{root:?}"),
        format!("{:?}", root.record_key()),
        format!("{:?}", root.envelope_key()),
        format!("{:?}", root.meta_key()),
        format!("{:?}", root.upload_key()),
        format!("{:?}", root.store_key_wrapping_key()),
        format!("{:?}", root.name_key("blob")),
    ];
    let expected = [
        "Secret(…)",
        "Dek(…)",
        "StoreKey(…)",
        "Root(…)",
        "RecordKey(…)",
        "EnvelopeKey(…)",
        "MetaKey(…)",
        "UploadKey(…)",
        "KeyWrappingKey(…)",
        "NameKey(…)",
    ];
    assert_eq!(printed, expected);
}

#[test]
fn only_the_exact_length_is_a_secret() {
    assert!(Dek::from_slice(&[1; 31]).is_none());
    assert!(Dek::from_slice(&[1; 33]).is_none());
    assert!(Secret::<32>::from_slice(&[]).is_none());
    let dek = Dek::from_slice(&[1; 32]).unwrap();
    assert_eq!(dek.expose(), &[1; 32]);
    assert!(dek.ct_eq(&Dek::from(Secret::from_slice(&[1; 32]).unwrap())));
    assert!(!dek.ct_eq(&Dek::from_slice(&[2; 32]).unwrap()));
}

#[test]
fn shares_join_to_the_root_and_fewer_do_not() {
    let random = Seeded::new(2);
    let root = Root::random(&random);
    for n in 1..=5 {
        let shares = root.split(n, &random);
        assert_eq!(shares.len(), n);
        assert!(Root::join(&shares).unwrap().ct_eq(&root));
        if n > 1 {
            assert!(!Root::join(&shares[1..]).unwrap().ct_eq(&root));
            assert!(!shares.iter().any(|share| share.expose() == root.expose()));
        }
        let again = root.split(n, &random);
        assert_eq!(again[0].ct_eq(&shares[0]), n == 1, "shares are drawn afresh");
    }
    assert_eq!(root.split(0, &random).len(), 1);
    assert!(Root::join(&[]).is_none());
}
