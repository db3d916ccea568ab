import java.io.File;
import java.util.List;
import net.schmizz.sshj.SSHClient;
import net.schmizz.sshj.sftp.FileAttributes;
import net.schmizz.sshj.sftp.RenameFlags;
import net.schmizz.sshj.sftp.SFTPClient;
import java.util.EnumSet;

/** sshj, which Cyberduck is made with. */
final class WithSshj implements Main.Client {
    private final SSHClient client;
    private final SFTPClient sftp;

    WithSshj() throws Exception {
        client = new SSHClient();
        client.loadKnownHosts(new File(Main.KNOWN_HOSTS));
        client.connect(Main.HOST, Main.PORT);
        client.authPublickey(Main.USER, Main.KEY);
        sftp = client.newSFTPClient();
        // It would set mode and times after each file.
        sftp.getFileTransfer().setPreserveAttributes(false);
    }

    @Override
    public void put(String local, String remote) throws Exception {
        sftp.put(local, remote);
    }

    @Override
    public void setTimes(String local, String remote) throws Exception {
        long written = Main.written(local);
        sftp.setattr(remote, new FileAttributes.Builder().withAtimeMtime(written, written).build());
    }

    @Override
    public void rename(String from, String to) throws Exception {
        sftp.rename(from, to, EnumSet.noneOf(RenameFlags.class));
    }

    @Override
    public long size(String remote) throws Exception {
        return sftp.stat(remote).getSize();
    }

    @Override
    public void resume(String local, String remote) throws Exception {
        sftp.put(local, remote, sftp.stat(remote).getSize());
    }

    @Override
    public void mkdir(String remote) throws Exception {
        sftp.mkdir(remote);
    }

    @Override
    public List<String> list(String remote) throws Exception {
        return sftp.ls(remote).stream().map(e -> e.getAttributes().getSize() + " " + e.getName()).toList();
    }

    @Override
    public void get(String remote, String local) throws Exception {
        sftp.get(remote, local);
    }

    @Override
    public void remove(String remote) throws Exception {
        sftp.rm(remote);
    }

    @Override
    public void close() throws Exception {
        client.disconnect();
    }
}
