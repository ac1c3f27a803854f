//! Small pictures of pictures (graph-api 6.5), made from the stored bytes when they are asked for.

use std::io::Cursor;

use image::{ImageFormat, ImageReader};
use serde_json::{Value, json};

use super::error::{ApiError, ApiResult};
use super::http::{Call, Reply, ReplyBody};
use super::state::State;
use super::tree::Slot;
use super::{content, mime};

/// Names of sizes, and the longest edge in pixels.
const SIZES: [(&str, u32); 3] = [("small", 96), ("medium", 176), ("large", 800)];
/// Larger originals have no picture.
const MAX_BYTES: u64 = 32 << 20;

impl State {
    /// The sets of an item: one for a picture that can be read, none for all else.
    pub(crate) fn thumbnail_sets(&self, call: &Call, at: usize, slot: Slot) -> Vec<Value> {
        let Some(whole) = self.picture(at, slot).and_then(|picture| picture.into_dimensions().ok()) else {
            return Vec::new();
        };
        let token = self.urls.issue(at, slot, 0, call.now);
        let mut set = json!({ "id": "0" });
        for (size, edge) in SIZES {
            let (width, height) = fitted(whole, edge);
            set[size] = json!({
                "height": height,
                "width": width,
                "url": format!("{}/_data/thumbnail/{size}?tempauth={token}", call.base),
            });
        }
        vec![set]
    }

    /// The bytes behind the address of a picture: JPEG, whatever the original is.
    pub(crate) fn thumbnail(&self, call: &Call, size: &str) -> ApiResult<Reply> {
        let edge = SIZES.iter().find(|(name, _)| *name == size).ok_or_else(ApiError::not_found)?.1;
        let token = call.option("tempauth").unwrap_or_default();
        let wanted = self.urls.open(token, call.now).ok_or_else(ApiError::not_found)?;
        let original = self.picture(wanted.drive, wanted.slot).and_then(|picture| picture.decode().ok());
        let original = original.ok_or_else(ApiError::not_found)?;
        let (width, height) = fitted((original.width(), original.height()), edge);
        let mut bytes = Cursor::new(Vec::new());
        let written =
            original.thumbnail_exact(width, height).to_rgb8().write_to(&mut bytes, ImageFormat::Jpeg);
        written.map_err(|_| ApiError::not_found())?;
        let bytes = bytes.into_inner();
        let len = bytes.len() as u64;
        let body = ReplyBody::Content(content::Reader::Memory(bytes.into()), 0, len);
        Ok(Reply { status: 200, headers: Vec::new(), body }.header("content-type", "image/jpeg"))
    }

    fn picture(&self, at: usize, slot: Slot) -> Option<ImageReader<Cursor<Vec<u8>>>> {
        let node = self.drives.get(at)?.live(slot).ok()?;
        let blob = node.blob().filter(|blob| blob.len() <= MAX_BYTES)?;
        let format = match mime::of(&node.name) {
            "image/jpeg" => ImageFormat::Jpeg,
            "image/png" => ImageFormat::Png,
            _ => return None,
        };
        let bytes = blob.open().ok()?.read(0, blob.len() as usize).ok()?;
        Some(ImageReader::with_format(Cursor::new(bytes.to_vec()), format))
    }
}

/// Width and height within a square: smaller, never larger.
fn fitted((width, height): (u32, u32), edge: u32) -> (u32, u32) {
    let longer = width.max(height).max(1);
    if longer <= edge {
        return (width, height);
    }
    let scaled = |side: u32| (f64::from(side) * f64::from(edge) / f64::from(longer)).round().max(1.0) as u32;
    (scaled(width), scaled(height))
}
