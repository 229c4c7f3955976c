package usb

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"sync"

	"sekisho/internal/event"
)

// nameTable gives names to ids that a device leaves without. It reads the
// system's table when it is asked, and remembers some answers, so that an agent
// that never needs it does not carry it.
type nameTable struct {
	files []string

	mu     sync.Mutex         // guards all below
	answer map[ids]foundNames // at most maxAnswers
}

type ids struct{ vendor, product string }

type foundNames struct{ vendor, product string }

// maxAnswers: a PC sees some tens of kinds of device in the life of an agent.
const maxAnswers = 128

// maxTable bounds a name table; Debian's of 2024 has 0.7 MB.
const maxTable = 16 << 20

func newNameTable(files []string) *nameTable {
	return &nameTable{files: files, answer: map[ids]foundNames{}}
}

// fill sets the names that the device does not have.
func (t *nameTable) fill(d *event.Device) {
	if d.VendorName != "" && d.ProductName != "" || d.VendorID == "" {
		return
	}
	n := t.lookup(ids{d.VendorID, d.ProductID})
	if d.VendorName == "" {
		d.VendorName = n.vendor
	}
	if d.ProductName == "" {
		d.ProductName = n.product
	}
}

func (t *nameTable) lookup(id ids) foundNames {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.answer[id]; ok {
		return n
	}
	var n foundNames
	for _, name := range t.files {
		if n = readNames(name, id); n.vendor != "" {
			break
		}
	}
	if n.vendor == "" || n.product == "" { // the system's table may be newer, so the one built in comes last
		b := builtInNames(id)
		if n.vendor == "" {
			n.vendor = b.vendor
		}
		if n.product == "" {
			n.product = b.product
		}
	}
	if len(t.answer) == maxAnswers {
		clear(t.answer)
	}
	t.answer[id] = n
	return n
}

func readNames(name string, id ids) foundNames {
	f, err := os.Open(name)
	if err != nil {
		return foundNames{}
	}
	defer f.Close()
	return findNames(io.LimitReader(f, maxTable), id)
}

// findNames looks for a device in a table of the form of usb.ids: a line "0781
// SanDisk Corp." for each vendor, below it "\t5581  Ultra" for its products,
// after all vendors lines of other kinds ("C 08  Mass Storage"). Lines that are
// not of that form, or too long, are passed over.
func findNames(r io.Reader, id ids) foundNames {
	var n foundNames
	br := bufio.NewReaderSize(r, 4<<10)
	ours := false
	for {
		line, err := br.ReadSlice('\n')
		long := false
		for err == bufio.ErrBufferFull { // skip the rest of a line that is too long
			long = true
			_, err = br.ReadSlice('\n')
		}
		if !long {
			product := len(line) > 0 && line[0] == '\t'
			switch key, name := tableLine(line); {
			case key == "":
			case product && ours && key == id.product:
				n.product = name
				return n
			case !product && ours:
				return n // the next vendor begins
			case !product && key == id.vendor:
				n.vendor, ours = name, true
			}
		}
		if err != nil {
			return n
		}
	}
}

// tableLine splits "0781  SanDisk Corp." or "\t5581  Ultra"; key is "" for a line
// of another form.
func tableLine(line []byte) (key, name string) {
	line = bytes.TrimRight(line, "\r\n")
	line = bytes.TrimPrefix(line, []byte{'\t'})
	if len(line) < 7 || line[4] != ' ' || line[5] != ' ' {
		return "", ""
	}
	for _, c := range line[:4] {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", ""
		}
	}
	return string(line[:4]), cut(string(bytes.TrimSpace(line[6:])))
}
