//! Who an engine runs as, when that is not the worker's own user.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tidemill_base::{Error, Result};

const READ: u32 = 4;
const ENTER: u32 = 1;

/// A user and group of the system, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}

impl User {
    /// Reads a name out of `/etc/passwd`, or numbers: `1000`, `1000:1000`. A number alone is the group's too. `Invalid` for root: it would
    /// confine nothing.
    pub fn parse(text: &str) -> Result<Self> {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self::find(text.trim(), &users)
    }

    fn find(text: &str, users: &str) -> Result<Self> {
        let number = |t: &str| t.parse::<u32>().ok();
        let numbers = match text.split_once(':') {
            Some((uid, gid)) => number(uid).zip(number(gid)),
            None => number(text).map(|n| (n, n)),
        };
        let named = || {
            let mut fields = users.lines().map(|l| l.split(':')).find_map(|mut f| (f.next()? == text).then_some(f))?;
            number(fields.nth(1)?).zip(number(fields.next()?))
        };
        let found = numbers.or_else(named).map(|(uid, gid)| Self { uid, gid });
        match found {
            Some(user) if user.uid == 0 => Err(Error::invalid(format!("`{text}` is root, which confines nothing; name another user"))),
            Some(user) => Ok(user),
            None => Err(Error::not_found(format!("there is no user `{text}` in /etc/passwd; make one, or give numbers as in 1000:1000"))),
        }
    }

    /// Checks that this process may start engines as the user, and that the user can reach `folder`. `Denied` says what is in the way.
    pub fn check(self, folder: &Path) -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::denied(format!(
                "only root can start engines as user {}; start the worker as root, or without a user",
                self.uid
            )));
        }
        for place in folder.ancestors().filter(|p| !p.as_os_str().is_empty()) {
            let meta = fs::metadata(place).map_err(|e| Error::from(e).context(format!("look at `{}`", place.display())))?;
            let wanted = if place == folder { READ | ENTER } else { ENTER };
            if self.rights(meta.uid(), meta.gid(), meta.mode()) & wanted != wanted {
                return Err(Error::denied(format!(
                    "user {} of the engines may not enter `{}`; open it (chmod o+rx), or give the worker another folder with --scratch",
                    self.uid,
                    place.display()
                )));
            }
        }
        Ok(())
    }

    /// What the user may do with a file of this owner, group and mode.
    const fn rights(self, uid: u32, gid: u32, mode: u32) -> u32 {
        if self.uid == uid {
            (mode >> 6) & 7
        } else if self.gid == gid {
            (mode >> 3) & 7
        } else {
            mode & 7
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nquant:x:1001:1002:Q:/home/quant:/bin/sh\nbroken:x\n";

    #[test]
    fn names_and_numbers_are_read_and_root_is_refused() {
        let find = |text| User::find(text, USERS);
        assert_eq!(find("quant").unwrap(), User { uid: 1001, gid: 1002 });
        assert_eq!(find("7").unwrap(), User { uid: 7, gid: 7 });
        assert_eq!(find("7:9").unwrap(), User { uid: 7, gid: 9 });
        for (text, word) in
            [("root", "confines nothing"), ("0:5", "confines nothing"), ("broken", "no user"), ("", "no user"), ("a:b", "no user")]
        {
            let e = find(text).unwrap_err();
            assert!(e.message().contains(word), "{e}");
        }
    }

    #[test]
    fn a_folder_that_the_user_cannot_enter_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let user = User { uid: 4_000_001, gid: 4_000_001 };
        assert_eq!((user.rights(4_000_001, 1, 0o750), user.rights(1, 4_000_001, 0o750), user.rights(1, 1, 0o751)), (7, 5, 1));
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("engines");
        fs::create_dir(&inner).unwrap();
        let set = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        set(0o700);
        let e = user.check(&inner).unwrap_err();
        if rustix::process::geteuid().is_root() {
            assert!(e.message().contains(&format!("may not enter `{}`", folder.path().display())), "{e}");
            set(0o711);
            user.check(&inner).unwrap();
        } else {
            assert!(e.message().contains("only root"), "{e}");
        }
    }
}
