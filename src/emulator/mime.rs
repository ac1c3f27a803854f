//! MIME types by extension, and which types SharePoint rewrites (graph-api 7.8).

fn extension(name: &str) -> String {
    match name.rfind('.') {
        Some(dot) if dot > 0 => name[dot + 1..].to_ascii_lowercase(),
        _ => String::new(),
    }
}

pub(crate) fn of(name: &str) -> &'static str {
    match extension(name).as_str() {
        "txt" | "md" | "log" => "text/plain",
        "html" | "htm" => "text/html",
        "css" => "text/css",
        "csv" => "text/csv",
        "json" => "application/json",
        "xml" => "text/xml",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "svg" => "image/svg+xml",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "zip" => "application/zip",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "one" => "application/msonenote",
        _ => "application/octet-stream",
    }
}

pub(crate) fn is_office(name: &str) -> bool {
    matches!(extension(name).as_str(), "docx" | "xlsx" | "pptx" | "doc" | "xls" | "ppt")
}

/// Types that get library metadata written into them after upload.
pub(crate) fn is_rewritten(name: &str) -> bool {
    is_office(name) || matches!(extension(name).as_str(), "pdf" | "html" | "htm")
}
