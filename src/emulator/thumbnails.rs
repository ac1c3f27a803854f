//! Small pictures of pictures (graph-api 6.5), made from the stored bytes when they are asked for.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat};
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
        let Some(original) = self.picture(at, slot) else { return Vec::new() };
        let token = self.urls.issue(at, slot, 0, call.now);
        let mut set = json!({ "id": "0" });
        for (size, edge) in SIZES {
            let picture = fitted(&original, edge);
            set[size] = json!({
                "height": picture.height(),
                "width": picture.width(),
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
        let original = self.picture(wanted.drive, wanted.slot).ok_or_else(ApiError::not_found)?;
        let mut bytes = Cursor::new(Vec::new());
        let written = fitted(&original, edge).to_rgb8().write_to(&mut bytes, ImageFormat::Jpeg);
        written.map_err(|_| ApiError::not_found())?;
        let bytes = bytes.into_inner();
        let len = bytes.len() as u64;
        let body = ReplyBody::Content(content::Reader::Memory(bytes.into()), 0, len);
        Ok(Reply { status: 200, headers: Vec::new(), body }.header("content-type", "image/jpeg"))
    }

    fn picture(&self, at: usize, slot: Slot) -> Option<DynamicImage> {
        let node = self.drives.get(at)?.live(slot).ok()?;
        let blob = node.blob().filter(|blob| blob.len() <= MAX_BYTES)?;
        let format = match mime::of(&node.name) {
            "image/jpeg" => ImageFormat::Jpeg,
            "image/png" => ImageFormat::Png,
            _ => return None,
        };
        let bytes = blob.open().ok()?.read(0, blob.len() as usize).ok()?;
        image::load_from_memory_with_format(&bytes, format).ok()
    }
}

/// Smaller, never larger.
fn fitted(original: &DynamicImage, edge: u32) -> DynamicImage {
    if original.width().max(original.height()) <= edge {
        return original.clone();
    }
    original.thumbnail(edge, edge)
}
