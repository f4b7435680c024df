//! Archives that are not as a layout's should be: nothing is read but plain files with a layout's names, all of them within the
//! archive, and nothing is ever written.

use std::fs;

use bulla::{Algorithm, Digest};
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn header(kind: EntryType, len: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(len);
    header.set_mode(0o644);
    header
}

/// Adds an entry whose name is taken as it is.
fn add(tar: &mut Builder<Vec<u8>>, kind: EntryType, name: &[u8], len: u64, content: &[u8]) {
    let mut header = header(kind, len);
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

fn file(tar: &mut Builder<Vec<u8>>, name: &[u8], content: &[u8]) {
    add(tar, EntryType::Regular, name, content.len() as u64, content);
}

#[allow(clippy::unwrap_in_result, reason = "a failed unwrap is a failed test")]
fn look(bytes: &[u8]) -> Result<HashMap<Name, Range<u64>>, LayoutError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.tar");
    fs::write(&path, bytes).unwrap();
    let looked = places(&path).map(|places| places.of);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is unpacked");
    looked
}

fn refused(bytes: &[u8]) -> String {
    match look(bytes) {
        Err(LayoutError::Invalid(why) | LayoutError::Damaged(why)) => why,
        other => panic!("{:?}", other.map(|places| places.len())),
    }
}

fn made(fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    fill(&mut tar);
    tar.into_inner().unwrap()
}

#[test]
fn contents_are_found_where_they_are() {
    let long = Digest::of(Algorithm::Sha512, b"long");
    let bytes = made(|tar| {
        file(tar, b"./oci-layout", b"{}");
        add(tar, EntryType::Directory, b"blobs/", 0, b"");
        file(tar, format!("blobs/sha256/{HEX}").as_bytes(), b"");
        // Too long for a header's own field.
        let name = Name::Blob(long.clone()).to_string();
        tar.append_data(&mut header(EntryType::Regular, 4), name, &b"long"[..]).unwrap();
        // As Go writes what it has a fraction of a second of, and a size of its own.
        tar.append_pax_extensions([("mtime", &b"1.5"[..]), ("path", b"index.json"), ("size", b"5")]).unwrap();
        add(tar, EntryType::Regular, b"other", 5, b"index");
    });
    let places = look(&bytes).unwrap();
    let content = |name: &Name| {
        let place = &places[name];
        &bytes[usize::try_from(place.start).unwrap()..usize::try_from(place.end).unwrap()]
    };
    assert_eq!(places.len(), 4);
    assert_eq!(content(&Name::Layout), b"{}");
    assert_eq!(content(&Name::Index), b"index");
    assert_eq!(content(&Name::Blob(long)), b"long");
    assert_eq!(content(&Name::of(&format!("blobs/sha256/{HEX}")).unwrap()), b"");
}

#[test]
fn names_outside_of_a_layout_are_nothing() {
    let bytes = made(|tar| {
        for name in [
            &b"../oci-layout"[..],
            b"/index.json",
            b"blobs/../index.json",
            b"a/../index.json",
            b"././index.json",
            b"blobs/sha256/../../../etc/passwd",
            b"blobs/sha256/short",
            b"blobs/md5/d41d8cd98f00b204e9800998ecf8427e",
            b"manifest.json",
            b"\xff\xfe",
        ] {
            file(tar, name, b"x");
        }
        // Of what is no part of a layout nobody asks what it is.
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Block, EntryType::Fifo] {
            add(tar, kind, b"layer.tar", 0, b"");
        }
    });
    assert!(look(&bytes).unwrap().is_empty());
}

#[test]
fn only_plain_files_are_contents() {
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Directory,
    ] {
        let bytes = made(|tar| {
            let mut header = header(kind, 0);
            header.set_link_name("/etc/passwd").unwrap();
            tar.append_data(&mut header, "index.json", &b""[..]).unwrap();
        });
        let why = refused(&bytes);
        assert!(why.contains("`index.json` is no plain file"), "{kind:?}: {why}");
    }
}

#[test]
fn sparse_files_are_no_contents() {
    let bytes = made(|tar| {
        let mut header = header(EntryType::GNUSparse, 512);
        header.set_path("index.json").unwrap();
        let gnu = header.as_gnu_mut().unwrap();
        gnu.sparse[0].offset[..12].copy_from_slice(b"00000000000\0");
        gnu.sparse[0].numbytes[..12].copy_from_slice(b"00000001000\0");
        // As long as it says: 1 TiB.
        gnu.set_real_size(1 << 40);
        gnu.sparse[1].offset[..].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
        header.set_cksum();
        tar.append(&header, &[0; 512][..]).unwrap();
    });
    refused(&bytes);
}

#[test]
fn what_is_there_twice_is_refused() {
    for name in ["index.json", "./index.json"] {
        let bytes = made(|tar| {
            file(tar, b"index.json", b"{}");
            file(tar, name.as_bytes(), b"[]");
        });
        let why = refused(&bytes);
        assert!(why.contains("`index.json` is there twice"), "{why}");
    }
}

/// Lengths that are not there, in every way to write a number.
#[test]
fn a_length_is_believed_only_if_it_is_there() {
    for len in [600, 1 << 40, u64::MAX / 2, u64::MAX - 600, u64::MAX] {
        let bytes = made(|tar| add(tar, EntryType::Regular, b"index.json", len, b"short"));
        refused(&bytes[..1024]);
        let pax = made(|tar| {
            tar.append_pax_extensions([("size", len.to_string().as_bytes())]).unwrap();
            file(tar, b"index.json", b"short");
        });
        refused(&pax[..pax.len() - 1024]);
    }
    // The name of the next, a terabyte of it, which is a hole in the file.
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.tar");
    for kind in [EntryType::GNULongName, EntryType::XHeader] {
        let bytes = made(|tar| add(tar, kind, b"././@LongLink", 1 << 40, b""));
        fs::write(&path, bytes).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        match places(&path) {
            Err(LayoutError::Invalid(why)) => assert!(why.contains("too much beside"), "{why}"),
            other => panic!("{:?}", other.map(|places| places.of.len())),
        }
    }
}

#[test]
fn compressed_archives_say_what_to_do() {
    for (head, program) in COMPRESSED {
        let why = refused(&[head, &[0; 1000]].concat());
        assert!(why.contains("compressed") && why.contains(program), "{why}");
    }
    assert!(refused(&[7; 5000]).contains("is no tar"));
    assert!(look(b"").unwrap().is_empty());
    assert!(look(b"short").is_err());
}

proptest! {
    /// Whatever is found is within the file.
    #[test]
    fn any_bytes_give_an_answer(
        changes in proptest::collection::vec((0_usize..4096, any::<u8>()), 0..8),
        len in 0_usize..5000,
        fix in any::<bool>(),
    ) {
        let mut bytes = made(|tar| {
            file(tar, b"oci-layout", b"{}");
            tar.append_pax_extensions([("size", &b"2"[..])]).unwrap();
            file(tar, b"index.json", b"{}");
        });
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        // Else hardly any header would be looked at.
        if fix {
            for block in bytes.chunks_exact_mut(512) {
                if block[257..262] == *b"ustar" {
                    let header = Header::from_byte_slice(block);
                    let mut header = header.clone();
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            }
        }
        bytes.truncate(len);
        if let Ok(places) = look(&bytes) {
            prop_assert!(places.values().all(|place| place.start <= place.end && place.end <= bytes.len() as u64));
        }
    }
}
