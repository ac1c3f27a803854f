//! Small pictures for file managers.

use std::fs;
use std::io::Cursor;
use std::process::Output;

use image::{GenericImageView, ImageFormat, Rgb, RgbImage};
use onedrivefs::emulator::{Fault, FaultAction};

use crate::mounted_support::{Mounted, text};

fn photo(colour: [u8; 3]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(1000, 500, Rgb(colour)).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

// S209.
#[test]
fn a_folder_of_photos_gets_its_small_pictures_without_its_originals() {
    let Some(mounted) = Mounted::usual() else { return };
    let folder = mounted.path("Pictures & more");
    fs::create_dir_all(folder.join("2024")).unwrap();
    for (name, colour) in [("red.png", [250, 0, 0]), ("2024/green #1.png", [0, 250, 0])] {
        fs::write(folder.join(name), photo(colour)).unwrap();
    }
    fs::write(folder.join("broken.jpg"), "no picture").unwrap();
    fs::write(folder.join("notes.txt"), "no picture").unwrap();
    mounted.sync();
    assert!(mounted.run(&["free", &text(&folder)]).status.success());

    mounted.control().reset_log();
    let output = mounted.run(&["thumbnails", &text(&folder)]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "2 made, 0 there already; the service has none of 1 file\n");
    let counts = mounted.control().counts();
    assert_eq!((counts.get("thumbnail"), counts.get("children.list")), (Some(&2), Some(&2)), "{counts:?}");
    assert_eq!(counts.get("download"), None, "no original is fetched");

    let cache = mounted.scratch().join("home/.cache/thumbnails");
    let mut pictures: Vec<_> =
        fs::read_dir(cache.join("large")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(pictures.len(), 2);
    pictures.sort_by_key(|path| image::open(path).unwrap().get_pixel(9, 9)[0]);
    for (path, main) in pictures.iter().zip([1, 0]) {
        let picture = image::open(path).unwrap();
        assert_eq!(picture.dimensions(), (256, 128));
        assert!(picture.get_pixel(100, 60)[main] > 200, "the picture of another file");
    }

    mounted.control().reset_log();
    let output = mounted.run(&["thumbnails", &text(&folder.join("2024")), "--json"]);
    assert_eq!(said(&output).trim(), r#"{"made":0,"present":1,"none":0,"failed":0}"#);
    assert!(mounted.control().requests().is_empty(), "what is there costs nothing");

    fs::write(folder.join("red.png"), photo([0, 0, 250])).unwrap();
    mounted.sync();
    let output = mounted.run(&["thumbnails", &text(&folder.join("red.png"))]);
    assert_eq!(said(&output), "1 made, 0 there already\n", "its file was changed");
}

// S209.
#[test]
fn pictures_that_cannot_be_fetched_are_named_and_a_service_that_is_away_is_said() {
    let Some(mounted) = Mounted::usual() else { return };
    fs::create_dir(mounted.path("photos")).unwrap();
    fs::write(mounted.path("photos/a.png"), photo([250, 0, 0])).unwrap();
    mounted.sync();
    let fault = |op: &str, action| Fault {
        method: None,
        path: None,
        op: Some(op.into()),
        skip: 0,
        count: None,
        action,
    };
    let number = mounted.control().inject(fault("thumbnail", FaultAction::status(404, "itemNotFound")));
    let output = mounted.run(&["thumbnails", &text(&mounted.path("photos"))]);
    assert_eq!(output.status.code(), Some(6), "{}", said(&output));
    assert!(
        said(&output).contains("photos/a.png: ") && said(&output).contains("run this again later"),
        "{}",
        said(&output)
    );
    mounted.control().remove_fault(number);
    mounted.control().inject(fault("children.list", FaultAction::status(403, "accessDenied")));
    let output = mounted.run(&["thumbnails", &text(&mounted.path("photos"))]);
    assert_eq!(output.status.code(), Some(12), "{}", said(&output));
    assert!(
        said(&output).contains("photos: ") && said(&output).contains("ask for access"),
        "{}",
        said(&output)
    );
    let output = mounted.run(&["thumbnails", "/"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
}
