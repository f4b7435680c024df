//! CBOR as a tree, written by other code than the crate's: for taking objects apart and building ones that the crate would
//! never write.

use minicbor::Decoder;
use minicbor::data::Type;

/// A value of the types that the format uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cbor {
    Uint(u64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Cbor>),
    Map(Vec<(u64, Cbor)>),
    Null,
    /// Already encoded.
    Raw(Vec<u8>),
}

impl Cbor {
    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }

    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Uint(value) => head(0, *value),
            Self::Bytes(bytes) => [head(2, len(bytes.len())), bytes.clone()].concat(),
            Self::Text(text) => [head(3, len(text.len())), text.clone().into_bytes()].concat(),
            Self::Array(items) => {
                let items = items.iter().flat_map(Self::encode);
                head(4, len(self.items().len())).into_iter().chain(items).collect()
            }
            Self::Map(entries) => {
                let items = entries.iter().flat_map(|(key, value)| [head(0, *key), value.encode()].concat());
                head(5, len(entries.len())).into_iter().chain(items).collect()
            }
            Self::Null => vec![0xf6],
            Self::Raw(bytes) => bytes.clone(),
        }
    }

    /// In diagnostic notation (RFC 8949 §8).
    pub(crate) fn notation(&self) -> String {
        let list = |items: &[Self]| items.iter().map(Self::notation).collect::<Vec<_>>().join(", ");
        match self {
            Self::Uint(value) => value.to_string(),
            Self::Bytes(bytes) => format!("h'{}'", data_encoding::HEXLOWER.encode(bytes)),
            // The format's texts have no characters that would have to be escaped.
            Self::Text(text) => format!("\"{text}\""),
            Self::Array(items) => format!("[{}]", list(items)),
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| format!("{key}: {}", value.notation()));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
            Self::Null => "null".to_owned(),
            Self::Raw(_) => panic!("what is encoded already has no notation"),
        }
    }

    /// The one value that `bytes` are.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let mut decoder = Decoder::new(bytes);
        let value = read(&mut decoder);
        assert_eq!(decoder.position(), bytes.len(), "bytes after the value");
        value
    }

    /// An array's items.
    pub(crate) fn items(&self) -> &[Self] {
        match self {
            Self::Array(items) => items,
            other => panic!("not an array: {other:?}"),
        }
    }

    /// An array's items.
    pub(crate) fn items_mut(&mut self) -> &mut Vec<Self> {
        match self {
            Self::Array(items) => items,
            other => panic!("not an array: {other:?}"),
        }
    }

    /// A map's value for `key`.
    pub(crate) fn field(&mut self, key: u64) -> &mut Self {
        match self {
            Self::Map(entries) => {
                &mut entries.iter_mut().find(|(found, _)| *found == key).expect("the map has the key").1
            }
            other => panic!("not a map: {other:?}"),
        }
    }

    /// A map's entries.
    pub(crate) fn entries(&mut self) -> &mut Vec<(u64, Self)> {
        match self {
            Self::Map(entries) => entries,
            other => panic!("not a map: {other:?}"),
        }
    }

    /// A byte string's bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            other => panic!("not a byte string: {other:?}"),
        }
    }
}

fn read(decoder: &mut Decoder<'_>) -> Cbor {
    match decoder.datatype().unwrap() {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => Cbor::Uint(decoder.u64().unwrap()),
        Type::Bytes => Cbor::bytes(decoder.bytes().unwrap()),
        Type::String => Cbor::text(decoder.str().unwrap()),
        Type::Array => {
            let len = decoder.array().unwrap().expect("a definite array");
            Cbor::Array((0..len).map(|_| read(decoder)).collect())
        }
        Type::Map => {
            let len = decoder.map().unwrap().expect("a definite map");
            Cbor::Map((0..len).map(|_| (decoder.u64().unwrap(), read(decoder))).collect())
        }
        Type::Null => {
            decoder.null().unwrap();
            Cbor::Null
        }
        other => panic!("the format does not use {other}"),
    }
}

fn len(len: usize) -> u64 {
    u64::try_from(len).unwrap()
}

/// Major type and shortest argument (RFC 8949 §3).
fn head(major: u8, value: u64) -> Vec<u8> {
    let major = major << 5;
    let be = value.to_be_bytes();
    match value {
        0..=23 => vec![major | be[7]],
        24..=0xff => vec![major | 24, be[7]],
        0x100..=0xffff => [&[major | 25], &be[6..]].concat(),
        0x1_0000..=0xffff_ffff => [&[major | 26], &be[4..]].concat(),
        _ => [&[major | 27], be.as_slice()].concat(),
    }
}
