package ship

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// maxRejectedBytes is when the file of rejected rows becomes the ".old" one. Judgement: a row is a few KiB and a rejected one
// a fault of ours, so some hundreds are more than anybody reads.
const maxRejectedBytes = 4 << 20

// rejected is a line of the file of rejected rows.
type rejected struct {
	Time   time.Time `json:"time"`
	Queue  string    `json:"queue"`
	Reason string    `json:"reason"`
	Row    string    `json:"row"` // as it was in the spool; bytes that are not UTF-8 are replaced
}

// reject adds a row to the file of rejected rows; it returns when that is on disk.
func reject(path, queue, reason string, row []byte) error {
	if path == "" {
		return nil
	}
	line, err := json.Marshal(rejected{Time: time.Now().UTC(), Queue: queue, Reason: reason, Row: string(row)})
	if err != nil {
		return fmt.Errorf("keep rejected row: %w", err)
	}
	line = append(line, '\n')
	if len(line) > maxRejectedBytes {
		return fmt.Errorf("keep rejected row: %d bytes are too many", len(line))
	}
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("keep rejected row: %w", err)
	case fi.Size()+int64(len(line)) > maxRejectedBytes:
		if err := os.Rename(path, path+".old"); err != nil {
			return fmt.Errorf("keep rejected row: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keep rejected row: %w", err)
	}
	_, err = f.Write(line)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("keep rejected row: %w", err)
	}
	return nil
}
