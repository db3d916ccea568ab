import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.time.Duration;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import org.apache.sshd.client.SshClient;
import org.apache.sshd.client.keyverifier.KnownHostsServerKeyVerifier;
import org.apache.sshd.client.keyverifier.RejectAllServerKeyVerifier;
import org.apache.sshd.client.session.ClientSession;
import org.apache.sshd.common.keyprovider.FileKeyPairProvider;
import org.apache.sshd.sftp.client.SftpClient;
import org.apache.sshd.sftp.client.SftpClient.OpenMode;
import org.apache.sshd.sftp.client.SftpClientFactory;

/** Apache MINA SSHD. */
final class WithMina implements Main.Client {
    private static final Duration PATIENCE = Duration.ofSeconds(20);

    private final SshClient client;
    private final SftpClient sftp;

    WithMina() throws Exception {
        client = SshClient.setUpDefaultClient();
        client.setServerKeyVerifier(
                new KnownHostsServerKeyVerifier(RejectAllServerKeyVerifier.INSTANCE, Path.of(Main.KNOWN_HOSTS)));
        client.setKeyIdentityProvider(new FileKeyPairProvider(Path.of(Main.KEY)));
        client.start();
        ClientSession session = client.connect(Main.USER, Main.HOST, Main.PORT).verify(PATIENCE).getSession();
        session.auth().verify(PATIENCE);
        sftp = SftpClientFactory.instance().createSftpClient(session);
    }

    @Override
    public void put(String local, String remote) throws Exception {
        copy(local, 0, remote, EnumSet.of(OpenMode.Write, OpenMode.Create, OpenMode.Truncate));
    }

    private void copy(String local, long from, String remote, Set<OpenMode> modes) throws Exception {
        try (InputStream source = Files.newInputStream(Path.of(local))) {
            source.skipNBytes(from);
            if (from == 0) {
                try (OutputStream target = sftp.write(remote, modes)) {
                    source.transferTo(target);
                }
                return;
            }
            // Its stream begins at 0; below it, WRITEs go anywhere.
            try (SftpClient.CloseableHandle handle = sftp.open(remote, modes)) {
                byte[] piece = new byte[32 * 1024];
                long at = from;
                for (int read = source.read(piece); read >= 0; read = source.read(piece)) {
                    sftp.write(handle, at, piece, 0, read);
                    at += read;
                }
            }
        }
    }

    @Override
    public void setTimes(String local, String remote) throws Exception {
        FileTime written = Files.getLastModifiedTime(Path.of(local));
        sftp.setStat(remote, new SftpClient.Attributes().modifyTime(written).accessTime(written));
    }

    @Override
    public void rename(String from, String to) throws Exception {
        sftp.rename(from, to);
    }

    @Override
    public long size(String remote) throws Exception {
        return sftp.stat(remote).getSize();
    }

    @Override
    public void resume(String local, String remote) throws Exception {
        copy(local, size(remote), remote, EnumSet.of(OpenMode.Write));
    }

    @Override
    public void mkdir(String remote) throws Exception {
        sftp.mkdir(remote);
    }

    @Override
    public List<String> list(String remote) throws Exception {
        List<String> lines = new ArrayList<>();
        for (SftpClient.DirEntry entry : sftp.readDir(remote)) {
            lines.add(entry.getAttributes().getSize() + " " + entry.getFilename());
        }
        return lines;
    }

    @Override
    public void get(String remote, String local) throws Exception {
        try (InputStream source = sftp.read(remote); OutputStream target = Files.newOutputStream(Path.of(local))) {
            source.transferTo(target);
        }
    }

    @Override
    public void remove(String remote) throws Exception {
        sftp.remove(remote);
    }

    @Override
    public void close() throws Exception {
        client.close();
    }
}
