//! The sample drive for demonstrations: texts, pictures, an Office file, odd names, something large.

use super::content::Blob;
use super::drive::Drive;
use super::seed::add;
use super::time::Ms;
use super::tree::{Kind, ROOT, Slot, folder};

const DAY: Ms = 86_400_000;

/// Bytes of the large generated sample.
const LARGE: u64 = 300_000_000;

/// Puts the samples into an empty drive.
pub(crate) fn plant(drive: &mut Drive, now: Ms) {
    for (n, (path, content)) in texts().into_iter().enumerate() {
        file(drive, path, Blob::from_bytes(content.into_bytes()), now - (n as Ms + 1) * DAY);
    }
    file(drive, "Pictures/gradient.png", Blob::from_bytes(png(64, 48)), now - 40 * DAY);
    file(drive, "Pictures/Holiday 2025/beach.png", Blob::from_bytes(png(160, 90)), now - 41 * DAY);
    file(drive, "Pictures/pixel.jpg", Blob::from_bytes(jpeg()), now - 42 * DAY);
    file(drive, "Documents/Letter.docx", Blob::from_bytes(docx()), now - 12 * DAY);
    file(drive, "Documents/empty.txt", Blob::from_bytes(&b""[..]), now - 13 * DAY);
    file(drive, "Videos/large sample.bin", Blob::Pattern { seed: 1, len: LARGE }, now - 20 * DAY);
    file(drive, "Videos/short clip.bin", Blob::Pattern { seed: 2, len: 5_000_000 }, now - 21 * DAY);
    for n in 1..=12 {
        let name = format!("Music/Track {n:02}.mp3");
        file(
            drive,
            &name,
            Blob::Pattern { seed: 100 + n, len: 3_000_000 + u64::from(n) * 4321 },
            now - 60 * DAY,
        );
    }
    for (path, special) in [("Documents", "documents"), ("Pictures", "photos")] {
        if let Some(slot) = drive.tree.child(ROOT, path) {
            drive.tree.node_mut(slot).extra_mut().special = Some(special);
        }
    }
    let empty = "Empty folder";
    add(drive, ROOT, empty, folder(), now - 3 * DAY);
}

fn texts() -> Vec<(&'static str, String)> {
    let deep = "Projects/2026/alpha/src/one/two/three/four/five/six/deep.txt";
    let mut all: Vec<(&'static str, String)> = vec![
        ("Welcome.txt", "Welcome to the sample drive.\nEverything here is made up.\n".into()),
        ("Documents/notes.md", "# Notes\n\n- buy milk\n- call Ann\n".into()),
        ("Documents/report 2026.csv", (1..200).map(|n| format!("{n};{}\n", n * n)).collect()),
        ("Documents/Übersicht.txt", "Größe, Maß, Öl\n".into()),
        ("Documents/plan #1 (50% + tax) & 'more'.txt", "All of # % + & ' are allowed in names.\n".into()),
        ("Documents/日本語.txt", "こんにちは\n".into()),
        ("Documents/emoji 🎉.txt", "🎉\n".into()),
        ("Documents/e\u{301} decomposed.txt", "The accent is a character of its own.\n".into()),
        ("Documents/page.html", "<!doctype html><title>Sample</title><p>Sample</p>\n".into()),
        ("Documents/data.json", "{\"sample\": true}\n".into()),
        ("Projects/2026/alpha/README.md", "# alpha\n".into()),
        ("Projects/2026/alpha/src/main.py", "print('hello')\n".into()),
        ("Projects/2026/alpha/src/util.py", "def double(x):\n    return 2 * x\n".into()),
        ("Projects/2026/beta/TODO", "everything\n".into()),
        ("Projects/.hidden/config", "key = value\n".into()),
        ("Projects/a+b=c/x&y.txt", "sums\n".into()),
    ];
    all.push((deep, "You have arrived.\n".into()));
    all
}

fn file(drive: &mut Drive, path: &str, blob: Blob, mtime: Ms) {
    let mut names: Vec<&str> = path.split('/').collect();
    let Some(last) = names.pop() else { return };
    let parent = names.into_iter().fold(ROOT, |at, name| folder_at(drive, at, name, mtime));
    add(drive, parent, last, Kind::File(blob), mtime);
}

fn folder_at(drive: &mut Drive, parent: Slot, name: &str, mtime: Ms) -> Slot {
    drive.tree.child(parent, name).unwrap_or_else(|| add(drive, parent, name, folder(), mtime))
}

/// CRC-32 as PNG and ZIP want it.
fn crc32(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

fn adler32(data: &[u8]) -> u32 {
    let (mut a, mut b) = (1u32, 0u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    b << 16 | a
}

/// An RGB gradient; the pixel data is stored, not compressed.
fn png(width: u16, height: u16) -> Vec<u8> {
    let mut raw = Vec::new();
    for y in 0..height {
        raw.push(0);
        for x in 0..width {
            let shade = |v: u16, max: u16| (u32::from(v) * 255 / u32::from(max.max(1))) as u8;
            raw.extend_from_slice(&[shade(x, width), shade(y, height), 128]);
        }
    }
    let mut zlib = vec![0x78, 0x01];
    let mut blocks = raw.chunks(65_535).peekable();
    while let Some(block) = blocks.next() {
        let len = block.len() as u16;
        zlib.push(u8::from(blocks.peek().is_none()));
        zlib.extend_from_slice(&len.to_le_bytes());
        zlib.extend_from_slice(&(!len).to_le_bytes());
        zlib.extend_from_slice(block);
    }
    zlib.extend_from_slice(&adler32(&raw).to_be_bytes());
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], data: &[u8]| {
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        let body = [kind, data].concat();
        out.extend_from_slice(&body);
        out.extend_from_slice(&crc32(&body).to_be_bytes());
    };
    let size = [u32::from(width).to_be_bytes(), u32::from(height).to_be_bytes()].concat();
    chunk(b"IHDR", &[&size[..], &[8, 2, 0, 0, 0]].concat());
    chunk(b"IDAT", &zlib);
    chunk(b"IEND", b"");
    out
}

/// The smallest archive that word processors take for a document; entries are stored.
fn docx() -> Vec<u8> {
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n";
    let main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml";
    let files = [
        (
            "[Content_Types].xml",
            format!(
                "{head}<Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\">\
             <Default Extension=\"rels\" ContentType=\"application/vnd.openxmlformats-package.relationships+xml\"/>\
             <Default Extension=\"xml\" ContentType=\"application/xml\"/>\
             <Override PartName=\"/word/document.xml\" ContentType=\"{main}\"/></Types>"
            ),
        ),
        (
            "_rels/.rels",
            format!(
                "{head}<Relationships xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\">\
             <Relationship Id=\"rId1\" Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument\" \
             Target=\"word/document.xml\"/></Relationships>"
            ),
        ),
        (
            "word/document.xml",
            format!(
                "{head}<w:document xmlns:w=\"http://schemas.openxmlformats.org/wordprocessingml/2006/main\"><w:body><w:p><w:r>\
             <w:t>Dear reader, this letter is a sample.</w:t></w:r></w:p></w:body></w:document>"
            ),
        ),
    ];
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, text) in &files {
        let (size, offset) = (text.len() as u32, out.len() as u32);
        let mut common = Vec::new();
        // Version 2.0, no flags, stored, 1980-01-01 00:00.
        for half in [20u16, 0, 0, 0, 0x21] {
            common.extend_from_slice(&half.to_le_bytes());
        }
        for word in [crc32(text.as_bytes()), size, size] {
            common.extend_from_slice(&word.to_le_bytes());
        }
        common.extend_from_slice(&(name.len() as u16).to_le_bytes());
        common.extend_from_slice(&[0, 0]);
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&common);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(text.as_bytes());
        directory.extend_from_slice(b"PK\x01\x02\x14\0");
        directory.extend_from_slice(&common);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let (at, size, count) = (out.len() as u32, directory.len() as u32, files.len() as u16);
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&at.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out
}

/// A grey picture of 8x8: one block whose only coefficient is zero.
fn jpeg() -> Vec<u8> {
    let mut out = vec![0xff, 0xd8];
    let mut segment = |marker: u8, data: &[u8]| {
        out.extend_from_slice(&[0xff, marker]);
        out.extend_from_slice(&(data.len() as u16 + 2).to_be_bytes());
        out.extend_from_slice(data);
    };
    segment(0xe0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
    segment(0xdb, &[&[0u8][..], &[1; 64]].concat());
    segment(0xc0, &[8, 0, 8, 0, 8, 1, 1, 0x11, 0]);
    for class in [0x00, 0x10] {
        // One code of one bit, for the symbol 0.
        let mut table = [0u8; 18];
        (table[0], table[1]) = (class, 1);
        segment(0xc4, &table);
    }
    segment(0xda, &[1, 1, 0, 0, 63, 0]);
    out.extend_from_slice(&[0x3f, 0xff, 0xd9]);
    out
}
