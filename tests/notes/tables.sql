        CREATE TABLE IF NOT EXISTS testing_notes (
            id uuid PRIMARY KEY,
            name text UNIQUE,
            text text NOT NULL,
            tag text,
            synthetic boolean NOT NULL DEFAULT false
        )
