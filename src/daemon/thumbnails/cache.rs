//! The desktop's cache of small pictures, as the freedesktop.org thumbnail specification has it.

use std::fs;
use std::io::{self, BufReader, Cursor, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageReader, Limits};
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::Original;

/// Directories, and the longest edge in pixels of the pictures in them.
const SIZES: [(&str, u32); 2] = [("normal", 128), ("large", 256)];
const URI: &str = "Thumb::URI";
const MTIME: &str = "Thumb::MTime";
/// Longest edge of what is taken for a small picture, in pixels.
const MAX_EDGE: u32 = 4096;

/// All but these is encoded in the addresses that file managers make (GLib's `g_filename_to_uri`).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b'-')
    .remove(b'.')
    .remove(b'/')
    .remove(b':')
    .remove(b'=')
    .remove(b'@')
    .remove(b'_')
    .remove(b'~');

/// Where small pictures are kept.
#[derive(Clone, Debug)]
pub struct ThumbnailCache(PathBuf);

impl ThumbnailCache {
    /// In `dir`, which need not be there.
    pub fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// Whether there are pictures of the file as it is now.
    pub fn has(&self, original: &Original) -> bool {
        SIZES.iter().all(|(size, _)| {
            let noted = notes(&self.path(size, &original.path)).unwrap_or_default();
            let says = |key: &str, value: &str| noted.iter().any(|(k, v)| k == key && v == value);
            says(URI, &uri(&original.path)) && says(MTIME, &original.mtime.to_string())
        })
    }

    /// Keeps pictures made from `bytes`, which hold one in a usual format.
    pub fn keep(&self, original: &Original, bytes: &[u8]) -> Result<(), String> {
        let mut reader = ImageReader::new(Cursor::new(bytes))
            .with_guessed_format()
            .map_err(|error| format!("the picture cannot be read ({error})"))?;
        let mut limits = Limits::default();
        (limits.max_image_width, limits.max_image_height) = (Some(MAX_EDGE), Some(MAX_EDGE));
        reader.limits(limits);
        let picture = reader.decode().map_err(|error| format!("the picture cannot be read ({error})"))?;
        for (size, edge) in SIZES {
            let path = self.path(size, &original.path);
            let fits = picture.width().max(picture.height()) <= edge;
            let small = if fits { picture.clone() } else { picture.thumbnail(edge, edge) };
            write(&path, original, &small).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }

    fn path(&self, size: &str, original: &Path) -> PathBuf {
        let digest = Md5::digest(uri(original).as_bytes());
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.join(size).join(format!("{name}.png"))
    }
}

fn uri(path: &Path) -> String {
    format!("file://{}", percent_encode(path.as_os_str().as_bytes(), ENCODED))
}

/// What a picture says of its original.
fn notes(path: &Path) -> Option<Vec<(String, String)>> {
    let decoder = png::Decoder::new(BufReader::new(fs::File::open(path).ok()?));
    let reader = decoder.read_info().ok()?;
    let texts = &reader.info().uncompressed_latin1_text;
    Some(texts.iter().map(|text| (text.keyword.clone(), text.text.clone())).collect())
}

/// Written aside and put in place at once: a file manager never sees half a picture.
fn write(path: &Path, original: &Original, picture: &DynamicImage) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    let picture = picture.to_rgba8();
    let mut encoder = png::Encoder::new(file.as_file_mut(), picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    let (mtime, size) = (original.mtime.to_string(), original.size.to_string());
    let texts = [
        (URI, uri(&original.path)),
        (MTIME, mtime),
        ("Thumb::Size", size),
        ("Software", "onedrivefs".to_owned()),
    ];
    for (key, value) in texts {
        encoder.add_text_chunk(key.to_owned(), value).map_err(io::Error::other)?;
    }
    let mut writer = encoder.write_header().map_err(io::Error::other)?;
    writer.write_image_data(&picture).map_err(io::Error::other)?;
    writer.finish().map_err(io::Error::other)?;
    file.as_file_mut().flush()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use image::{GenericImageView, ImageFormat, RgbImage};

    use super::*;

    fn jpeg(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        RgbImage::from_pixel(width, height, image::Rgb([200, 30, 30]))
            .write_to(&mut bytes, ImageFormat::Jpeg)
            .unwrap();
        bytes.into_inner()
    }

    #[test]
    fn names_are_those_that_file_managers_look_for() {
        // The example of the specification.
        let cache = ThumbnailCache::new("/c".into());
        let path = cache.path("normal", Path::new("/home/jens/photos/me.png"));
        assert_eq!(path, Path::new("/c/normal/c6ee772d9e49320e97ec29a7eb5b1697.png"));
        assert_eq!(uri(Path::new("/a b/ü#?;%[1].jpg")), "file:///a%20b/%C3%BC%23%3F%3B%25%5B1%5D.jpg");
    }

    #[test]
    fn a_picture_is_valid_for_one_time_of_its_original_and_no_larger_than_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ThumbnailCache::new(dir.path().join("thumbnails"));
        let original = Original { path: "/mnt/a b.jpg".into(), mtime: 1_700_000_000, size: 9 };
        assert!(!cache.has(&original));
        cache.keep(&original, &jpeg(800, 400)).unwrap();
        assert!(cache.has(&original));
        assert!(!cache.has(&Original { mtime: 1_700_000_001, ..original.clone() }), "it was changed since");
        for (size, edge) in SIZES {
            let picture = image::open(cache.path(size, &original.path)).unwrap();
            assert_eq!(picture.dimensions(), (edge, edge / 2));
        }
        cache.keep(&original, &jpeg(100, 50)).unwrap();
        let small = image::open(cache.path("large", &original.path)).unwrap();
        assert_eq!(small.dimensions(), (100, 50), "never larger than it came");
    }

    #[test]
    fn what_is_no_picture_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ThumbnailCache::new(dir.path().join("thumbnails"));
        let original = Original { path: "/mnt/a.jpg".into(), mtime: 1, size: 9 };
        for bytes in [&b"<html>busy</html>"[..], b"", &jpeg(50, 50)[..300]] {
            assert!(cache.keep(&original, bytes).unwrap_err().contains("cannot be read"));
        }
        assert!(!dir.path().join("thumbnails").exists());
    }
}
