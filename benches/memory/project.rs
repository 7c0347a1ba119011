//! The Django projects that are served: one is hardly more than Django, one is a site as they come.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::environment::Environment;
use crate::process::{self, scratch};

pub struct Project {
    pub name: &'static str,
    pub target: &'static str,
    /// What a visitor looks at.
    pub paths: &'static [&'static str],
    has_database: bool,
}

pub static PROJECTS: [Project; 2] = [
    Project {
        name: "light",
        target: "page.wsgi:application",
        paths: &["/"],
        has_database: false,
    },
    Project {
        name: "shop",
        target: "shop.wsgi:application",
        paths: &["/", "/product/3/", "/api/products/", "/admin/login/"],
        has_database: true,
    },
];

impl Project {
    pub fn named(name: &str) -> &'static Project {
        let found = PROJECTS.iter().find(|project| project.name == name);
        found.expect("the command line knows the names")
    }

    pub fn directory(&self) -> PathBuf {
        let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/memory");
        benches.join(self.name)
    }

    /// For the projects and for what prepares them.
    pub fn surround(&self, command: &mut Command) {
        command
            .current_dir(self.directory())
            .env("SHOP_DATABASE", database())
            .env("PYTHONDONTWRITEBYTECODE", "1");
    }

    /// The same for all servers: a fresh SQLite file with some products.
    pub fn prepare(&self, environment: &Environment) -> Result<(), String> {
        if !self.has_database {
            return Ok(());
        }
        let _ = std::fs::remove_file(database());
        for arguments in [["migrate", "-v0"], ["fill", "-v0"]] {
            let mut manage = Command::new(environment.python());
            manage.arg("manage.py").args(arguments);
            self.surround(&mut manage);
            let (status, printed) = process::run(&mut manage, Duration::from_secs(120))?;
            if !status.success() {
                return Err(format!("cannot make the database: {}", printed.trim()));
            }
        }
        Ok(())
    }
}

fn database() -> PathBuf {
    scratch("shop.sqlite3")
}
