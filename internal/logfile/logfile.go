// Package logfile makes the log of both programs: JSON lines into a file that
// is rotated, and text for a person on a terminal.
package logfile

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/DeRuina/timberjack"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Options say where a log goes.
type Options struct {
	Dir      string // of the file; empty: no file
	Name     string // of the file, "agent.log"
	MaxBytes int64  // of one file, rounded up to 1 MB; 0: 10 MB
	MaxFiles int    // old files kept; 0: all
	Level    string // debug, info, warn, error
	Terminal bool   // also as text to standard error
}

// New opens the log. The level can be changed while it is in use. Close flushes
// and closes the file.
func New(o Options) (log *zap.Logger, level zap.AtomicLevel, close func(), err error) {
	if level, err = zap.ParseAtomicLevel(o.Level); err != nil {
		return nil, level, nil, fmt.Errorf("log level %q: %w", o.Level, err)
	}
	close = func() {}
	var cores []zapcore.Core
	if o.Dir != "" {
		if err := os.MkdirAll(o.Dir, 0o700); err != nil {
			return nil, level, nil, fmt.Errorf("make log directory: %w", err)
		}
		const mb = 1 << 20
		w := &timberjack.Logger{
			Filename:   filepath.Join(o.Dir, o.Name),
			MaxSize:    int((o.MaxBytes + mb - 1) / mb),
			MaxBackups: o.MaxFiles,
			FileMode:   0o600,
		}
		if w.MaxSize == 0 {
			w.MaxSize = 10
		}
		close = func() { w.Close() }
		enc := zap.NewProductionEncoderConfig()
		enc.EncodeTime = zapcore.RFC3339NanoTimeEncoder
		cores = append(cores, zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.AddSync(w), level))
	}
	if o.Terminal {
		enc := zap.NewDevelopmentEncoderConfig()
		enc.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		enc.ConsoleSeparator = "  "
		cores = append(cores, zapcore.NewCore(zapcore.NewConsoleEncoder(enc), zapcore.Lock(os.Stderr), level))
	}
	return zap.New(zapcore.NewTee(cores...)), level, close, nil
}
