//! The process's exit codes.

/// All went well.
pub const OK: u8 = 0;
/// Failed for a reason that has no code of its own.
pub const FAILURE: u8 = 1;
/// The command line, the environment or the configuration file is wrong.
pub const USAGE: u8 = 2;
/// No mount of ours is there.
pub const NOT_MOUNTED: u8 = 3;
/// Something is still unsent; it is kept and goes out later.
pub const UNSENT: u8 = 4;
/// Signed out: the sign-in is missing or no longer valid.
pub const SIGNED_OUT: u8 = 5;
/// The service cannot be reached, or refuses.
pub const SERVICE: u8 = 6;
/// Held by somebody else: the mount point, the drive's state, an open file.
pub const BUSY: u8 = 7;
/// This system cannot mount: no FUSE, no permission.
pub const SYSTEM: u8 = 8;
/// A secret or a certificate of this machine cannot be read or used.
pub const SECRET: u8 = 9;
/// The sign-in service refuses the application.
pub const APPLICATION: u8 = 10;
/// The service knows no such drive, site, library or folder.
pub const NO_DRIVE: u8 = 11;
/// The account may not see the drive.
pub const NO_ACCESS: u8 = 12;
/// A sharing link leads nowhere any more.
pub const NO_LINK: u8 = 13;

/// Every code with its meaning, for `--help` and the documentation.
pub const TABLE: &[(u8, &str)] = &[
    (OK, "done"),
    (FAILURE, "failed, for a reason without a code of its own"),
    (USAGE, "the command line, the environment or the configuration file is wrong"),
    (NOT_MOUNTED, "there is no such mount"),
    (UNSENT, "changes are still unsent; they are kept and go out later"),
    (SIGNED_OUT, "the sign-in is missing or no longer valid"),
    (SERVICE, "the service cannot be reached, or refuses"),
    (BUSY, "somebody else holds the mount point, the drive's state or an open file"),
    (SYSTEM, "this system cannot mount: FUSE or a permission is missing"),
    (SECRET, "a secret or a certificate cannot be read, or can no longer be used"),
    (APPLICATION, "the sign-in service refuses the application: its id, tenant, secret or certificate"),
    (NO_DRIVE, "the service knows no such drive, site, library, group or folder"),
    (NO_ACCESS, "the account may not see the drive, site or folder"),
    (NO_LINK, "a sharing link has expired, was taken back, or is not for this account"),
];
